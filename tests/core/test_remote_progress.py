"""What another process says is drawn here as if it had happened here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headway.core.errors import Conflict, Forbidden, GateFailed, HeadwayError, PlatformError, Unavailable
from headway.core.lease import LeaseLost
from headway.core.progress import RecordedProgress
from headway.core.remote_progress import HeardProgress, SpokenProgress, heard_error, told_error


def through_json(line: dict[str, Any]) -> dict[str, Any]:
    crossed: dict[str, Any] = json.loads(json.dumps(line))
    return crossed


def test_stages_and_notes_cross() -> None:
    drawn = RecordedProgress()
    heard = HeardProgress(drawn)
    spoken = SpokenProgress(lambda line: heard.hear(through_json(line)))
    with spoken.stage("dataset") as stage:
        stage.advance(1, 2)
        stage.note("ten rows")
        with spoken.stage("beside") as other:
            other.note("at the same time")
    assert [(stage.name, stage.notes) for stage in drawn.stages] == [
        ("dataset", ["ten rows"]),
        ("beside", ["at the same time"]),
    ]


class Marks(RecordedProgress):
    """Remembers how stages ended, as a console would draw it."""


def test_a_stage_that_failed_there_or_was_cut_short_fails_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    ended: list[tuple[str, str]] = []

    @contextmanager
    def stage(_: Any, name: str) -> Any:
        mark = "failed"
        try:
            yield None
            mark = "done"
        finally:
            ended.append((name, mark))

    monkeypatch.setattr(Marks, "stage", stage)
    heard = HeardProgress(Marks())
    spoken = SpokenProgress(heard.hear)
    with spoken.stage("good"):
        pass
    with pytest.raises(ZeroDivisionError), spoken.stage("bad"):
        raise ZeroDivisionError
    heard.hear({"event": "begin", "stage": "cut short"})
    heard.hear({"event": "of a later version"})
    heard.close()
    assert ended == [("good", "done"), ("bad", "failed"), ("cut short", "failed")]


@pytest.mark.parametrize(
    "error",
    [
        GateFailed("churn 3: roc_auc 0.6 < floor 0.7", hint="the champion stays"),
        Conflict("churn is being trained by ann", hint="wait"),
        Unavailable("the registry does not answer", retry_after_s=2.0, hint="headway status"),
        LeaseLost("lease: epoch 1 is over"),
        Forbidden("no", field="scope"),
    ],
)
def test_an_error_is_the_same_error_here(error: HeadwayError) -> None:
    heard = heard_error(through_json(told_error(error)))
    assert type(heard) is type(error)
    assert vars(heard) == vars(error)
    assert str(heard) == str(error)


def test_an_unknown_kind_is_an_error_of_the_platform() -> None:
    told = told_error(Conflict("later")) | {"kind": "OfALaterVersion"}
    assert type(heard_error(told)) is PlatformError
