"""Each stage is shown, made once for equal inputs, and recorded whatever became of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.clock import ManualClock
from headway.core.errors import InvalidValue
from headway.core.progress import RecordedProgress, Stage
from headway.training.stage_cache import StageCache
from headway.training.stages import StageOutcome, Stages


class Run:
    """Stages with a counter of what was made."""

    def __init__(self, root: Path) -> None:
        self.made = 0
        self.records: list[StageOutcome] = []
        self.progress = RecordedProgress()
        clock = ManualClock(1)
        self.stages = Stages(
            cache=StageCache(root=root, clock=clock), progress=self.progress, clock=clock, record=self.records.append
        )

    def make(self, folder: Path, _: Stage) -> str:
        self.made += 1
        (folder / "number").write_text(str(self.made))
        return f"made {self.made}"


def test_equal_inputs_are_made_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    first = run.stages.run("train", {"seed": 1}, run.make)
    again = run.stages.run("train", {"seed": 1}, run.make)
    other = run.stages.run("train", {"seed": 2}, run.make)
    assert first.folder == again.folder != other.folder
    assert run.made == 2
    assert [stage.notes for stage in run.progress.stages] == [["made 1"], ["made 1", "cached"], ["made 2"]]
    assert [(record.outcome, record.cached) for record in run.records] == [
        ("done", False),
        ("cached", True),
        ("done", False),
    ]
    assert run.records[0].inputs_sha256 == run.records[1].inputs_sha256 == first.folder.name


def test_what_does_not_hold_any_more_is_made_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.stages.run("sign", {}, run.make)
    kept = run.stages.run("sign", {}, run.make, still=lambda _: False)
    assert (kept.folder / "number").read_text() == "2"


def test_a_stage_that_fails_is_recorded_and_not_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def fails(folder: Path, _: Stage) -> str:
        raise InvalidValue("label", "holds nulls")

    with pytest.raises(InvalidValue):
        run.stages.run("train", {}, fails)
    assert [record.outcome for record in run.records] == ["failed: holds nulls"]
    run.stages.run("train", {}, run.make)
    assert run.made == 1


def test_a_run_that_lost_its_turn_makes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def lost() -> None:
        raise RuntimeError("another run has the turn")

    run.stages.guard = lost
    with pytest.raises(RuntimeError):
        run.stages.run("register", {}, run.make)
    assert (run.made, run.records) == (0, [])
