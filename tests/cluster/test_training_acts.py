"""What a training job gives the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster import training_acts
from headway.cluster.compose import Installation
from headway.cluster.training_job import JobRequest
from headway.core.clock import SystemClock
from headway.core.control import MemoryControlStore
from headway.core.progress import RecordedProgress
from headway.core.routing import VersionRef, promote
from headway.core.settings import Settings
from headway.governance.keys import MODEL_SIGN, development_keys
from headway.training.gates.judge import Against
from tests.training import world


def test_the_gates_meet_the_champion_of_their_moment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    control, clock = MemoryControlStore(), SystemClock()
    development_keys(settings.home, [MODEL_SIGN])
    at: Any = SimpleNamespace(
        job=lambda _: world.job, contract=lambda _: world.contract(), control=control, clock=clock, settings=settings,
        committer=None, registry=None, reader=None, audit=None, workload=lambda *_: None,
    )  # fmt: skip
    champion = VersionRef(version="2", path="/models/2", statement_sha256="2" * 64)

    def pipeline(_: Any, *, against: Callable[[], Against], **__: Any) -> Any:
        before = against()
        promote(control, "shop", champion, reason="meanwhile", by="ann", now=clock.now())
        asked.extend((before, against()))
        return SimpleNamespace(ref=champion)

    asked: list[Against] = []
    monkeypatch.setattr(training_acts, "run_pipeline", pipeline)
    monkeypatch.setattr(training_acts, "keep_card", lambda *_: None)
    request = JobRequest(
        act="train", use_case="shop", home="h", project="p", asked_by="ann", lock_sha256="a" * 64, as_of=world.AS_OF,
        without_champion="other features",
    )  # fmt: skip
    training_acts.train_here(cast(Installation, at), request, RecordedProgress())
    assert [found.champion for found in asked] == [None, champion]
    assert {found.without_champion for found in asked} == {"other features"}
    assert asked[1].describe()["champion"] == ""
