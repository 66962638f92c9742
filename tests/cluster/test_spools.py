from __future__ import annotations

import fcntl
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pytest

from headway.cluster.compose import Installation
from headway.cluster.spools import drain_spools
from headway.core.clock import SystemClock
from headway.core.control import MemoryControlStore
from headway.core.errors import DefinitionError, InvalidValue, PlatformError
from headway.core.settings import Settings
from headway.features.lake.committer import Committer
from headway.features.lake.tables import PURPOSES, Location, open_catalog

ROWS = {
    "decision_id": pa.array(["a", "b"]),
    "customer_id": pa.array([1, 2], pa.int64()),
    "score": pa.array([0.25, 0.75], pa.float32()),
    "event_time": pa.array([10, 20], pa.int64()),
    "known_time": pa.array([11, 21], pa.int64()),
}


class World:
    """What draining needs of an installation, with a real lake."""

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home
        self.location = Location.of(settings)
        privacy = SimpleNamespace(purposes=("customer_retention", "monitoring"))
        signed = SimpleNamespace(contract=SimpleNamespace(privacy=privacy))
        self.at = cast(
            Installation,
            SimpleNamespace(
                contract=lambda use_case: signed,
                committer=Committer(self.location),
                control=MemoryControlStore(),
                settings=settings,
                project=SimpleNamespace(use_cases=lambda: ["churn"], collect=lambda folder, kind: []),
                service=lambda use_case: None,
                clock=SystemClock(),
            ),
        )

    def spool(self, table: str, name: str, columns: dict[str, pa.Array] | None = None) -> Path:
        folder = self.home / "spool" / table
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        rows = pa.table(ROWS if columns is None else columns)
        with pa.ipc.new_stream(path, rows.schema) as stream:
            stream.write_table(rows)
        return path

    def rows(self, table: str) -> pa.Table:
        return open_catalog(self.location).load_table(table).scan().to_arrow()


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


def test_decisions_and_outcomes_reach_their_tables_and_leave_the_spool(world: World) -> None:
    world.spool("decisions.churn", "r-000001.arrows")
    world.spool("decisions.churn", "s-000001.arrows")
    world.spool("outcomes.churn", "r-000001.arrows")
    assert drain_spools(world.at, "churn") == 6
    assert world.rows("decisions.churn").num_rows == 4
    outcomes = world.rows("outcomes.churn")
    assert sorted(outcomes["decision_id"].to_pylist()) == ["a", "b"]
    assert outcomes.schema.field("score").type == pa.float32()
    assert list((world.home / "spool").rglob("*.arrows")) == []
    assert drain_spools(world.at, "churn") == 0


def test_a_file_that_is_drained_again_adds_nothing(world: World) -> None:
    kept = world.spool("decisions.churn", "r-000001.arrows").read_bytes()
    drain_spools(world.at, "churn")
    (world.home / "spool" / "decisions.churn" / "r-000001.arrows").write_bytes(kept)
    drain_spools(world.at, "churn")
    assert world.rows("decisions.churn").num_rows == 2


def test_the_tables_may_be_read_for_the_contracts_purposes(world: World) -> None:
    world.spool("decisions.churn", "r-000001.arrows")
    drain_spools(world.at, "churn")
    properties = open_catalog(world.location).load_table("decisions.churn").properties
    assert properties[PURPOSES].split(",") == ["customer_retention", "monitoring", "model_training"]


def test_the_file_of_a_living_writer_and_other_use_cases_are_left_alone(world: World) -> None:
    path = world.spool("decisions.churn", "r-000001.open")
    other = world.spool("decisions.fraud", "r-000001.arrows")
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert drain_spools(world.at, "churn") == 0
    assert drain_spools(world.at, "churn") == 2, "its writer is gone"
    assert other.exists()


def test_a_column_the_lake_cannot_hold_is_named_and_kept(world: World) -> None:
    path = world.spool("decisions.churn", "r-000001.arrows", {**ROWS, "raw": pa.array([b"x", b"y"])})
    with pytest.raises(InvalidValue) as caught:
        drain_spools(world.at, "churn")
    assert caught.value.field == "decisions.churn.raw"
    assert path.exists()


def test_nothing_spooled_is_nothing_done(world: World) -> None:
    assert drain_spools(world.at, "churn") == 0


def test_a_feature_that_is_added_does_not_stop_the_log(world: World) -> None:
    added = {**ROWS, "visits": pa.array([3.0, 4.0], pa.float32())}
    world.spool("decisions.churn", "r-000001.arrows")
    assert drain_spools(world.at, "churn") == 2
    world.spool("decisions.churn", "old-000002.arrows")
    world.spool("decisions.churn", "new-000001.arrows", added)
    world.spool("decisions.churn", "old-000001.arrows")
    world.spool("decisions.churn", "new-000002.arrows", added)
    assert drain_spools(world.at, "churn") == 8
    rows = world.rows("decisions.churn")
    assert sorted(rows["visits"].to_pylist(), key=str) == [3.0, 3.0, 4.0, 4.0, *[None] * 6]
    assert rows["score"].null_count == 0


def test_a_changed_type_is_an_error_and_stops_nothing_else(world: World) -> None:
    world.spool("decisions.churn", "a-000001.arrows")
    drain_spools(world.at, "churn")
    stays = world.spool("decisions.churn", "b-000001.arrows", {**ROWS, "score": pa.array(["low", "high"])})
    world.spool("decisions.churn", "c-000001.arrows")
    world.spool("outcomes.churn", "r-000001.arrows")
    with pytest.raises(DefinitionError, match="score"):
        drain_spools(world.at, "churn")
    assert [path for path in (world.home / "spool").rglob("*") if path.is_file()] == [stays]
    assert world.rows("decisions.churn").num_rows == 4
    assert world.rows("outcomes.churn").num_rows == 2


def test_when_both_fail_both_are_reported(world: World) -> None:
    world.spool("decisions.churn", "r-000001.arrows", {**ROWS, "raw": pa.array([b"x", b"y"])})
    world.spool("outcomes.churn", "r-000001.arrows", {**ROWS, "rare": pa.array([b"x", b"y"])})
    with pytest.raises(PlatformError, match=r"decisions: .*raw.*outcomes: .*rare"):
        drain_spools(world.at, "churn")


def test_an_outcome_in_two_files_is_committed_once(world: World) -> None:
    world.spool("outcomes.churn", "r-000001.arrows")
    world.spool("outcomes.churn", "s-000001.arrows")
    assert drain_spools(world.at, "churn") == 2
    world.spool("outcomes.churn", "t-000001.arrows")
    assert drain_spools(world.at, "churn") == 0
    assert world.rows("outcomes.churn").num_rows == 2
