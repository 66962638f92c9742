from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from headway.cluster.compose import Installation
from headway.cluster.history import batch_name, ingest_tables, known_before
from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import Forbidden
from headway.core.settings import Settings
from headway.core.times import DAY, HOUR, SECOND
from headway.core.types import Principal
from headway.features.definitions import View, WindowView
from headway.features.history import History
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location, open_catalog
from headway.features.write_report import WriteReport
from headway.governance.audit_event import MemoryAudit
from tests.cluster.demo.conftest import START, history, service, tables

__all__ = ["history"]


class Online:
    """An online store that remembers what it was told."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int]] = []
        self.watermarks: dict[str, int] = {}
        self.marks: dict[str, dict[int, tuple[int, int]]] = {}

    def write(self, view: WindowView, events: pa.Table) -> WriteReport:
        self.written.append((view.name, events.num_rows))
        return WriteReport()

    def set_watermark(self, view: WindowView, moment: int) -> None:
        self.watermarks[view.name] = moment

    def materialized(self, view: WindowView) -> dict[int, tuple[int, int]]:
        return self.marks.get(view.name, {})

    def set_materialized(self, view: WindowView, bucket: int, snapshot_id: int, newest: int) -> None:
        self.marks.setdefault(view.name, {})[bucket] = (snapshot_id, newest)

    def watermark(self, view: WindowView) -> int:
        return self.watermarks.get(view.name, 0)


class World:
    """What ingestion needs of an installation, with a real lake."""

    def __init__(self, settings: Settings) -> None:
        self.location = Location.of(settings)
        self.online = Online()
        self.audit = MemoryAudit()
        self.views: tuple[View, ...] = service.stored
        self.at = cast(
            Installation,
            SimpleNamespace(
                views=lambda use_case: self.views,
                reader=LakeReader(self.location, self.audit, ManualClock(START + 4 * DAY)),
                workload=lambda sub, scopes, purpose: Principal(
                    sub=sub, kind="workload", scopes=frozenset(scopes), purpose=purpose, expires=START + 5 * DAY
                ),
                committer=Committer(self.location),
                online=self.online,
                quality=None,
                audit=self.audit,
                control=MemoryControlStore(),
                clock=ManualClock(START + 4 * DAY),
            ),
        )

    def rows(self, table: str) -> int:
        return int(open_catalog(self.location).load_table(table).scan().to_arrow().num_rows)

    def ingest(self, history: History, given: dict[str, pa.Table], **changed: Any) -> int:
        arguments = {
            "batch": "b",
            "watermark": START,
            "principal": ingester("ingest:visits", "ingest:returns"),
            **changed,
        }
        return ingest_tables(self.at, history, given, **arguments)


def ingester(*scopes: str) -> Principal:
    return Principal(
        sub="ingest", kind="workload", scopes=frozenset(scopes), purpose="platform_operations", expires=START + 5 * DAY
    )


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


def test_only_what_was_known_before_the_moment() -> None:
    past = known_before(tables(48), START + DAY)
    assert past["visits"].num_rows == 24
    assert past["returns"].num_rows == 0
    edge = START + 5 * HOUR + SECOND
    assert known_before(tables(48), edge)["visits"].num_rows == 5
    assert known_before(tables(48), edge + 1)["visits"].num_rows == 6


def test_equal_histories_have_equal_batch_names() -> None:
    name = batch_name("shop", 7, tables(48), START)
    assert name == batch_name("shop", 7, tables(48), START)
    others = [
        batch_name("bar", 7, tables(48), START),
        batch_name("shop", 8, tables(48), START),
        batch_name("shop", 7, tables(47), START),
        batch_name("shop", 7, tables(48), START + 1),
    ]
    assert len({name, *others}) == 5


def test_sources_go_to_the_lake_and_their_views_online(world: World, history: History) -> None:
    assert world.ingest(history, dict(tables(48)), watermark=START + DAY) == 96
    assert world.rows("events.visits") == world.rows("events.returns") == 48
    assert world.online.written == [("past", 48)], "no view is made from the labels"
    assert world.online.watermarks == {"past": START + DAY}
    assert [event.action for event in world.audit.events] == ["data.ingest", "data.ingest"]


def test_a_new_version_of_a_view_gets_everything_that_the_lake_has(world: World, history: History) -> None:
    visits = tables(48)["visits"]
    world.ingest(history, {"visits": visits.slice(0, 40)}, watermark=START + DAY)
    (view,) = service.stored
    world.views = (view, dataclasses.replace(view, name="longer"))
    world.online.written.clear()
    world.ingest(history, {"visits": visits.slice(40)}, batch="c", watermark=START + 2 * DAY)
    new = [rows for name, rows in world.online.written if name == "longer"]
    assert ("past", 8) in world.online.written
    assert sum(new) == 48, "what came before, and this batch"
    assert world.online.watermarks == {"past": START + 2 * DAY, "longer": START + 2 * DAY}


def test_repeating_a_batch_adds_nothing_and_another_does(world: World, history: History) -> None:
    visits = tables(48)["visits"]
    world.ingest(history, {"visits": visits.slice(0, 40)})
    world.ingest(history, {"visits": visits.slice(0, 40)})
    assert world.rows("events.visits") == 40
    world.ingest(history, {"visits": visits.slice(40)}, batch="c")
    assert world.rows("events.visits") == 48


def test_the_watermark_advances_though_nothing_came(world: World, history: History) -> None:
    assert world.ingest(history, {}, watermark=START + HOUR) == 0
    assert world.online.watermarks == {"past": START + HOUR}


def test_without_the_right_nothing_is_written(world: World, history: History) -> None:
    with pytest.raises(Forbidden):
        world.ingest(history, dict(tables(4)), principal=ingester("ingest:returns"))
    assert world.online.written == []
    assert [event.outcome for event in world.audit.events] == ["denied"]
