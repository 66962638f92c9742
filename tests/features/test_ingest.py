from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import InvalidValue, Unavailable
from headway.core.times import DAY, HOUR
from headway.core.types import Columns, Principal
from headway.features.aggregates import count
from headway.features.backlog import Backlog
from headway.features.definitions import FeatureService, Overflow, WindowView
from headway.features.ingest import IngestReport, ingest
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.online import OnlineReader, OnlineRows
from headway.features.online_store import OnlineStore
from headway.features.recompute import LakeFeatures, rows_of
from headway.features.windows.codec import prefix, unpack
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE, Event, a_view
from tests.features.samples import table
from tests.features.valkey import Valkey

VIEW = a_view(retention=DAY)


class World:
    """A lake, an online store that may be killed, and an ingester."""

    def __init__(self, lake: Location, clock: ManualClock, url: str, analyst: Principal, **bounds: int) -> None:
        self.clock, self.audit = clock, MemoryAudit(clock)
        self.committer = Committer(lake, clock)
        self.reader = LakeReader(lake, self.audit, clock)
        self.online_url = url
        self.online = OnlineStore(url, clock=clock)
        self.analyst = analyst
        self.backlog = Backlog(
            online=self.online,
            reader=self.reader,
            control=MemoryControlStore(),
            clock=clock,
            principal=lambda: analyst,
            **bounds,
        )
        self.clerk = Principal(
            sub="c", kind="workload", purpose="testing", expires=2**60, scopes=frozenset({"ingest:payments"})
        )

    def ingest(self, rows: pa.Table, batch: str, **changed: Any) -> IngestReport:
        given: dict[str, Any] = {"views": (VIEW,), "backlog": self.backlog, **changed}
        return ingest(
            given.pop("source", SOURCE), rows, self.committer, self.online, given.pop("views"), batch, self.clock,
            principal=self.clerk, audit=self.audit, **given,
        )  # fmt: skip

    def in_lake(self) -> list[int]:
        return sorted(self.reader.scan(SOURCE, self.analyst, "testing")["payment"].to_pylist())

    def online_ids(self, view: WindowView = VIEW, keys: int = 7) -> list[int]:
        stored = self.online._client.mget([prefix(view) + str(key).encode() for key in range(keys)])
        events, _ = unpack(view, stored)
        return sorted(events.records[:, 2].tolist())


@pytest.fixture
def world(lake: Location, clock: ManualClock, server: Valkey, analyst: Principal) -> World:
    return World(lake, clock, server.url, analyst)


def a_tiled_view() -> WindowView:
    return WindowView(
        name="tiled", entity=VIEW.entity, source=SOURCE, aggregates=count("1000us"), hop="50us", retention=2_000
    )


def payments(first: int, count: int) -> pa.Table:
    return table([Event(i % 7, 1_000 + i, 1_001 + i, i, i) for i in range(first, first + count)])


def test_what_comes_from_the_far_future_is_refused_whole_and_history_survives(world: World) -> None:
    world.ingest(payments(0, 20), "a")
    now = world.clock.now()
    year = 365 * DAY
    for event_time, known_time, field in (
        (now + year, now + year, "event_time"),
        (now, now + year, "known_time"),
        (2_000 + 2 * HOUR, 2_000, "event_time"),
    ):
        batch = pa.concat_tables([payments(20, 3), table([Event(3, event_time, known_time, 99, 1)])])
        with pytest.raises(InvalidValue, match="more than 1h after") as caught:
            world.ingest(batch, "b")
        assert caught.value.field == f"rows[3].{field}"
    assert world.in_lake() == world.online_ids() == list(range(20))
    assert world.online.watermark(VIEW) == 1_020
    assert world.ingest(table([Event(3, now + HOUR, now + HOUR, 99, 1)]), "b").rows == 1
    announced = dataclasses.replace(SOURCE, max_ahead=year)
    assert world.ingest(table([Event(4, now + DAY, now, 100, 1)]), "c", source=announced, views=()).rows == 1


def test_while_the_store_is_away_the_lake_takes_what_it_then_gets_first(world: World, server: Valkey) -> None:
    assert world.ingest(payments(0, 20), "a").owed == 0
    server.kill()
    assert [world.ingest(payments(20 + 5 * i, 5), f"b{i}").owed for i in range(3)] == [5, 10, 15]
    assert world.ingest(payments(30, 5), "b2").owed == 20, "a repeated batch is in the lake once"
    assert world.in_lake() == list(range(35))
    server.start()  # empty: everything it had is gone
    assert world.online.watermark(VIEW) == 0
    assert world.ingest(payments(35, 5), "c").owed == 0
    assert world.in_lake() == world.online_ids() == list(range(40))
    assert world.online.watermark(VIEW) == 1_040
    assert world.backlog.owed(SOURCE).rows == 0
    assert world.ingest(payments(40, 5), "d").views[VIEW.name].events == 5, "only the batch: nothing is behind"


def test_a_store_that_comes_back_with_its_data_gets_only_what_it_missed(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="v"))
    server = Valkey(folder, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    try:
        world = World(lake, clock, server.url, analyst)
        world.ingest(payments(0, 20), "a")
        server.kill()
        world.ingest(payments(20, 5), "b")
        server.start()
        assert world.online.watermark(VIEW) == 1_020, "nothing is claimed that is not there"
        assert world.ingest(payments(25, 5), "c").views[VIEW.name].events == 10
        assert world.online_ids() == list(range(30))
        assert world.online.watermark(VIEW) == 1_030
    finally:
        server.kill()
        shutil.rmtree(folder)


def test_an_ingester_that_died_between_lake_and_store_leaves_no_gap(world: World) -> None:
    world.ingest(payments(0, 20), "a")
    world.committer.append(SOURCE, payments(20, 5), "b")
    world.ingest(payments(25, 5), "c")
    assert world.online_ids() == list(range(30))


@pytest.mark.parametrize("bounds", [{"max_rows": 9}, {"max_age": HOUR}])
def test_beyond_the_bound_ingestion_is_refused_until_the_store_is_back(
    lake: Location, clock: ManualClock, server: Valkey, analyst: Principal, bounds: dict[str, int]
) -> None:
    world = World(lake, clock, server.url, analyst, **bounds)
    world.ingest(payments(0, 20), "a")
    server.kill()
    world.ingest(payments(20, 5), "b")
    world.ingest(payments(25, 5), "c")
    clock.advance(HOUR + 1)
    with pytest.raises(Unavailable, match=r"10 rows of payments wait .* since 1h") as caught:
        world.ingest(payments(30, 5), "d")
    assert caught.value.retry_after_s > 0
    assert world.in_lake() == list(range(30)), "what was refused is not in the lake"
    server.start()
    world.ingest(payments(30, 5), "d")
    assert world.in_lake() == world.online_ids() == list(range(35))


def test_a_view_that_rejects_overflow_needs_the_store(world: World, server: Valkey) -> None:
    strict = dataclasses.replace(VIEW, overflow=Overflow.REJECT)
    world.ingest(payments(0, 20), "a", views=(strict,))
    server.kill()
    with pytest.raises(Unavailable):
        world.ingest(payments(20, 5), "b", views=(strict,))
    assert world.in_lake() == list(range(20))
    server.start()
    world.ingest(payments(20, 5), "b", views=(strict,))
    assert world.in_lake() == world.online_ids(strict) == list(range(25))


def test_tiles_that_are_written_twice_count_once(world: World) -> None:
    """The store was fed and not told so: what comes again is older than closed tiles, and is made anew."""
    view = a_tiled_view()
    world.online = OnlineStore(
        world.online_url, clock=world.clock, history=lambda v, keys: rows_of(v, keys, world.reader, world.analyst)
    )
    world.backlog = dataclasses.replace(world.backlog, online=world.online)
    world.ingest(payments(0, 3_000), "a", views=(view,))
    world.committer.append(SOURCE, payments(3_000, 3_000), "b")
    world.online.write(view, payments(3_000, 3_000))
    report = world.ingest(payments(6_000, 7), "c", views=(view,))
    assert report.views[view.name].rebuilt == 7
    service = FeatureService(name="tiled", views=(view,), request={})
    keys: Columns = {"card": np.arange(7)}
    at = np.full(7, 7_010)

    async def go() -> OnlineRows:
        reader = OnlineReader(service, world.online_url)
        found = await reader.read(keys, at)
        await reader.close()
        return found

    served = asyncio.run(go()).columns
    true = LakeFeatures(service, lambda: world.reader, lambda: world.analyst).read([view.name], keys, at).columns
    assert {name: column.tolist() for name, column in served.items()} == {
        name: column.tolist() for name, column in true.items()
    }
    assert served["tiled__count_1ms"].tolist() == pytest.approx([143.0] * 7, abs=8)


def test_no_row_is_too_few(world: World) -> None:
    report = world.ingest(payments(0, 0), "a")
    assert (report.rows, report.owed, world.online.watermark(VIEW)) == (0, 0, 0)
    world.ingest(payments(0, 5), "b")
    world.ingest(payments(0, 0), "c", watermark=5_000)
    assert world.online.watermark(VIEW) == 5_000
    assert np.array_equal(world.online_ids(), range(5))
