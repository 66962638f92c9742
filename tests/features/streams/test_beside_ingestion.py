"""One source that batches and a stream bring: neither corrupts nor stalls the other."""

from __future__ import annotations

import pytest

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.times import SECOND
from headway.features.backlog import Backlog
from headway.features.ingest import IngestReport, ingest
from headway.features.lake.tables import Location
from headway.features.streams.drivers.redis import RedisStream
from tests.features.oracle import SOURCE, Event
from tests.features.samples import table
from tests.features.streams.world import TOPIC, VIEW, World, message, payments, principal


class Both(World):
    """A world whose source is ingested in batches too."""

    def ingest(self, events: list[Event], batch: str) -> IngestReport:
        parts = self.parts
        backlog = Backlog(
            online=self.online, reader=self.reader, control=parts.control, clock=parts.clock,
            principal=lambda: principal("data:read"),
        )  # fmt: skip
        return ingest(
            SOURCE, table(events), parts.committer, self.online, (VIEW,), batch, parts.clock,
            principal=principal("ingest:payments"), audit=parts.audit, backlog=backlog,
        )  # fmt: skip


@pytest.fixture
def world(online_url: str, lake: Location, clock: ManualClock) -> Both:
    stream = RedisStream(online_url)
    stream.create(TOPIC, partitions=1)
    return Both(online_url, lake, clock, stream, MemoryControlStore())


def publish(world: Both, events: list[Event]) -> None:
    world.parts.stream.publish(world.parts.stream.topic(TOPIC), [message(event) for event in events])


def test_batches_between_segments_lose_nothing_and_count_nothing_twice(world: Both, clock: ManualClock) -> None:
    processor = world.processor()
    world.ingest(payments(0, 10), "a")
    for number in range(1, 5):
        publish(world, payments(20 * number, 10))
        processor.step()
        world.ingest(payments(20 * number + 10, 10), f"b{number}")  # while the segment is pending
        clock.advance(10 * SECOND)
        processor.step()
        complete = world.online.watermark(VIEW)
        world.ingest(payments(20 * number + 10, 10), f"b{number}")  # again, after the segment
        assert world.online.watermark(VIEW) == complete == clock.now(), "a batch of the past takes nothing back"
    sent = sorted([*range(10), *range(20, 100)])
    assert world.in_lake() == world.online_ids() == sent


def test_an_event_that_both_bring_counts_once(world: Both, clock: ManualClock) -> None:
    processor = world.processor()
    publish(world, payments(0, 10))
    processor.step()
    world.ingest(payments(5, 10), "a")
    clock.advance(10 * SECOND)
    processor.step()
    assert world.online_ids() == list(range(15))
    assert set(world.in_lake()) == set(range(15))


def test_what_the_stream_brought_is_read_once_by_the_next_ingestion(world: Both, clock: ManualClock) -> None:
    processor = world.processor()
    world.ingest(payments(0, 10), "a")
    publish(world, payments(100, 30))  # known later than the batches that follow
    processor.step()
    clock.advance(10 * SECOND)
    processor.step()
    assert world.ingest(payments(10, 5), "b").views[VIEW.name].events == 35
    assert world.ingest(payments(15, 5), "c").views[VIEW.name].events == 5, "and then it is done with"
    assert world.online_ids() == sorted([*range(20), *range(100, 130)])
