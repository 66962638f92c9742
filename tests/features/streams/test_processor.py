from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import DefinitionError, Forbidden, Unavailable
from headway.core.times import DAY, HOUR, SECOND
from headway.features.aggregates import count
from headway.features.definitions import Overflow, WindowView
from headway.features.lake.tables import Location
from headway.features.online_store import OnlineStore
from headway.features.recompute import rows_of
from headway.features.streams.checkpoint import Fenced
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import OffsetBeyondEnd, RetentionGap, Topic, TopicGone
from headway.features.streams.processor import PartitionProcessor
from tests.features.oracle import CARD, SOURCE, Event
from tests.features.streams.world import TOPIC, VIEW, World, message, payments, principal
from tests.features.valkey import Valkey

Make = Callable[..., World]


@pytest.fixture
def make(online_url: str, lake: Location, clock: ManualClock, stream: RedisStream) -> Make:
    control = MemoryControlStore()
    return lambda url=online_url, **given: World(url, lake, clock, stream, control, **given)


def drain(processor: PartitionProcessor) -> int:
    total = 0
    while done := processor.step():
        total += done
    return total


def test_events_are_readable_at_once_and_in_the_lake_with_the_segment(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock
) -> None:
    world = make(batch_rows=8)
    stream.publish(topic, [message(event) for event in payments(0, 30)])
    processor = world.processor()
    assert processor.step() == 8
    assert world.online_ids() == list(range(8))
    assert world.online.watermark(VIEW) == 1_001 + 3 * 7
    assert drain(processor) == 22
    assert world.online.watermark(VIEW) == clock.now()  # drained: complete until now
    assert processor.progress.pending_rows == 30
    assert world.checkpoint().offset == 0
    clock.advance(10 * SECOND)
    processor.step()
    assert world.in_lake() == world.online_ids() == list(range(30))
    assert (world.checkpoint().offset, world.checkpoint().rows, world.checkpoint().plan) == (30, 30, None)
    assert stream.bounds(topic, 0).first == 30
    (done,) = [event for event in world.audit.events if event.action == "data.ingest"]
    assert done.resource == f"{SOURCE.table}#{TOPIC}@{topic.identity[:12]}:0:0-29"


def test_a_micro_batch_grows_while_more_messages_wait(make: Make, stream: RedisStream, topic: Topic) -> None:
    stream.publish(topic, [message(event) for event in payments(0, 120)])
    processor = make(batch_rows=5, catch_up_rows=40).processor()
    assert [processor.step() for _ in range(6)] == [5, 10, 20, 40, 40, 5]
    stream.publish(topic, [message(event) for event in payments(120, 20)])
    assert [processor.step() for _ in range(3)] == [5, 10, 5]


def test_a_segment_that_is_due_may_wait_for_its_turn(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock
) -> None:
    world = make()
    processor = world.processor()
    stream.publish(topic, [message(event) for event in payments(0, 3)])
    processor.step()
    clock.advance(11 * SECOND)
    assert (processor.due or 0) < clock.now()
    stream.publish(topic, [message(event) for event in payments(3, 3)])
    assert processor.step(settle=False) == 3
    assert world.online_ids() == list(range(6))
    assert world.checkpoint().offset == 0
    processor.step()
    assert (world.checkpoint().offset, processor.due) == (6, None)


def test_a_segment_is_bounded_by_rows_and_bytes(make: Make, stream: RedisStream, topic: Topic) -> None:
    stream.publish(topic, [message(event) for event in payments(0, 40)])
    processor = make(batch_rows=5, segment_rows=12).processor()
    processor.step()
    processor.step()
    assert processor.progress.pending_rows == 10
    processor.step()
    assert processor.progress.pending_rows == 0
    bounded = make(batch_rows=5, segment_bytes=200).processor()
    bounded.step()
    assert bounded.progress.pending_bytes == 0


def test_poison_drift_and_far_future_become_dead_letters_and_stop_nothing(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock
) -> None:
    good, now = payments(0, 4), clock.now()
    stream.publish(
        topic,
        [
            message(good[0]),
            (b"k", b"\xff\x00 not json"),
            message(good[1], color="red"),
            message(good[2], card="7"),
            message(good[2], event_time=now + DAY, known_time=now + DAY),
            (b"k", b'{"payment": 9}'),
            message(good[3], amount=1e30),
            message(good[3]),
        ],
    )
    world = make()
    processor = world.processor()
    assert processor.step() == 8
    processor.flush()
    assert world.in_lake() == world.online_ids() == [0, 1, 3]
    dead = dict(world.dead().keys())
    assert sorted(dead) == [1, 3, 4, 5, 6]
    assert "`$.card`" in dead[3]
    assert dead[4] == "event_time: is more than 1h after the clock"
    assert "missing required field" in dead[5]
    assert dead[6].startswith("amount: ")
    assert processor.progress.unknown == ("color",)
    assert (world.checkpoint().rows, world.checkpoint().dead) == (3, 5)


def test_an_event_of_an_old_segment_is_not_measured_by_a_younger_clock(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock
) -> None:
    """What a recorded segment refused, its repetition refuses too: lake and online store agree."""
    at = clock.now() + HOUR + 11 * SECOND
    stream.publish(topic, [message(payments(0, 1)[0]), message(Event(1, at, at, 1, 1))])
    world = make()
    processor = world.processor()
    processor.step()
    append = Killer(world, at=0, after=True)
    with pytest.raises(Killed):
        processor.flush()
    append.rest()
    clock.advance(HOUR)
    again = world.processor()
    again.step()
    again.flush()
    assert world.in_lake() == world.online_ids() == [0]
    assert sorted(world.dead().values()) == [1]


class Killed(BaseException):
    """What a test raises in place of a death."""


class Killer:
    """Ends a processor at its n-th effect on the outside, before or after it."""

    def __init__(self, world: World, *, at: int, after: bool) -> None:
        self._left, self._after = at, after
        self._patch = pytest.MonkeyPatch()
        for owner, name in (
            (world.parts.control, "put"),
            (world.parts.committer, "append"),
            (world.parts.stream, "release"),
            (OnlineStore, "write"),
            (OnlineStore, "set_watermark"),
        ):
            self._wrap(owner, name)

    def _wrap(self, owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0 and not self._after:
                raise Killed
            done = real(*given, **named)
            if self._left < 0:
                raise Killed
            return done

        self._patch.setattr(owner, name, call)

    def rest(self) -> None:
        self._patch.undo()


@pytest.mark.soak
@pytest.mark.parametrize("after", [False, True])
def test_a_death_at_any_effect_loses_nothing_and_counts_nothing_twice(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock, after: bool
) -> None:
    """Every effect of a run is once the last one; the next processor starts with other batches."""
    world, sent, deaths = make(batch_rows=4, segment_rows=9), 0, 0
    for at in range(100):
        events = payments(sent, 20)
        sent += 20
        stream.publish(topic, [*(message(event) for event in events), (b"k", b"poison")])
        killer = Killer(world, at=at, after=after)
        processor = world.processor()
        try:
            drain(processor)
            processor.flush()
            finished = True
        except Killed:
            finished = False
            deaths += 1
        killer.rest()
        if finished:
            break
        world = make(batch_rows=3 + at % 4, segment_rows=9)
        successor = world.processor()
        drain(successor)
        successor.flush()
        clock.advance(1)
        assert world.in_lake() == list(range(sent))
        assert world.online_ids() == list(range(sent))
        assert set(world.dead().values()) == {1}
        checkpoint = world.checkpoint()
        assert (checkpoint.offset, checkpoint.rows, checkpoint.dead) == (sent + at + 1, sent, at + 1)
    assert deaths >= 20


def test_only_one_processor_can_move_a_partition(make: Make, stream: RedisStream, topic: Topic) -> None:
    stream.publish(topic, [message(event) for event in payments(0, 10)])
    world = make(batch_rows=4)
    old, new = world.processor(), world.processor()
    old.step()
    drain(new)
    old.step()  # it cannot know yet, and does no harm
    new.flush()
    for _ in range(2):
        with pytest.raises(Fenced):
            old.flush()
    with pytest.raises(Fenced):
        old.step()
    assert world.in_lake() == world.online_ids() == list(range(10))
    assert world.checkpoint().rows == 10


def test_a_fault_of_the_lake_or_the_store_passes_and_the_stream_is_the_buffer(
    make: Make, stream: RedisStream, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.publish(topic, [message(event) for event in payments(0, 10)])
    world = make(segment_rows=5)
    processor = world.processor()

    def away(*_: object) -> None:
        raise Unavailable("away", retry_after_s=1.0)

    for owner, name in ((OnlineStore, "write"), (world.parts.committer, "append")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, away)
            for _ in range(3):
                with pytest.raises(Unavailable):
                    processor.step()
        assert world.checkpoint().offset == 0
        assert stream.bounds(topic, 0).first == 0
    drain(processor)
    processor.flush()
    assert world.in_lake() == world.online_ids() == list(range(10))


def test_a_late_event_of_a_tile_finds_its_whole_history_pending_events_too(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock
) -> None:
    tiled = WindowView(name="tiled", entity=CARD, source=SOURCE, aggregates=count("20d"), hop="1d")
    late = [Event(1, 10 * DAY + 1 + i, 10 * DAY + 1 + i, i, i) for i in range(60)]
    fresh = [Event(1, 30 * DAY + i, 30 * DAY + i, 100 + i, i) for i in range(300)]
    world = make(views=(tiled,), batch_rows=1_000)
    clock.advance(40 * DAY)
    processor = world.processor()
    stream.publish(topic, [message(event) for event in [*late[1:], *fresh]])
    processor.step()
    assert world.checkpoint().offset == 0
    stream.publish(topic, [message(late[0])])
    processor.step()  # its tile is closed: the lake is asked, and gets what was pending first
    assert world.checkpoint().offset == 360
    plain = OnlineStore(world.parts.online_url, clock=clock)
    before = plain._client.get(plain._client.keys("headway:f:tiled*")[0])
    clear = plain.clear(tiled)
    assert clear == 1
    assert world.in_lake() == sorted([*range(60), *range(100, 400)])

    # what the lake alone makes of it
    plain.write(tiled, rows_of(tiled, np.array([1]), world.reader, principal("data:read")))
    after = plain._client.get(plain._client.keys("headway:f:tiled*")[0])
    assert before[32:] == after[32:]


def test_a_view_is_complete_up_to_the_least_of_all_partitions(
    make: Make, stream: RedisStream, clock: ManualClock
) -> None:
    stream.create(TOPIC, partitions=2)
    world = make()
    first, second = world.processor(0), world.processor(1)
    start = clock.now()
    first.step()
    assert world.online.watermark(VIEW) == 0
    clock.advance(SECOND)
    second.step()
    assert world.online.watermark(VIEW) == start
    first.step()
    assert world.online.watermark(VIEW) == start + SECOND


def test_messages_dropped_unread_stop_it_until_somebody_skips_them(
    make: Make, stream: RedisStream, topic: Topic
) -> None:
    world = make()
    processor = world.processor()
    stream.publish(topic, [message(event) for event in payments(0, 10)])
    stream.release(topic, 0, 4)
    for _ in range(2):
        with pytest.raises(RetentionGap):
            processor.step()
    assert processor.skip_gap() == 4
    assert processor.skip_gap() == 0
    drain(processor)
    processor.flush()
    assert world.in_lake() == list(range(4, 10))
    assert world.checkpoint().lost == 4


def test_a_recorded_segment_that_the_stream_dropped_can_be_skipped(
    make: Make, stream: RedisStream, topic: Topic
) -> None:
    world = make()
    processor = world.processor()
    stream.publish(topic, [message(event) for event in payments(0, 10)])
    drain(processor)
    killer = Killer(world, at=0, after=True)
    with pytest.raises(Killed):
        processor.flush()
    killer.rest()
    stream.release(topic, 0, 4)
    successor = world.processor()
    with pytest.raises(RetentionGap):
        successor.step()
    assert successor.skip_gap() == 4
    drain(successor)
    successor.flush()
    assert world.in_lake() == list(range(4, 10))
    assert (world.checkpoint().lost, world.checkpoint().rows) == (4, 6)


def test_a_topic_made_anew_is_read_from_its_beginning(make: Make, stream: RedisStream, topic: Topic) -> None:
    world = make()
    processor = world.processor()
    stream.publish(topic, [message(event) for event in payments(0, 10)])
    drain(processor)
    processor.flush()
    stream.delete(TOPIC)
    for _ in range(2):
        with pytest.raises(TopicGone):
            processor.step()
    anew = stream.create(TOPIC, partitions=1)
    stream.publish(anew, [message(event) for event in payments(10, 10)])
    drain(processor)
    processor.flush()
    assert world.in_lake() == world.online_ids() == list(range(20))
    assert world.checkpoint().identity == anew.identity


def test_a_stream_that_lost_a_recorded_segment_is_an_error(make: Make, stream: RedisStream, topic: Topic) -> None:
    world = make()
    processor = world.processor()
    stream.publish(topic, [message(event) for event in payments(0, 10)])
    drain(processor)
    killer = Killer(world, at=0, after=True)
    with pytest.raises(Killed):
        processor.flush()
    killer.rest()
    stream._client.unlink(f"headway:s:{TOPIC}@{topic.identity}:0")
    with pytest.raises(OffsetBeyondEnd):
        world.processor().step()


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("rows", [10, 100])
def test_an_online_store_that_lost_its_state_is_filled_from_the_lake_before_its_watermark_moves(
    make: Make, topic: Topic, stream: RedisStream, server: Valkey, seen: bool, rows: int
) -> None:
    """The topic is on another server than the state, which comes back empty while events are pending."""
    world = make(segment_rows=rows, batch_rows=10, url=server.url)
    processor = world.processor()
    stream.publish(topic, [message(event) for event in payments(0, 25)])
    drain(processor)
    assert (world.checkpoint().offset, world.refills) == (20 if rows == 10 else 0, 0)
    server.kill()
    if seen:
        with pytest.raises(Unavailable):
            processor.step()
    server.start()
    drain(processor)
    assert world.refills == (0 if seen and rows == 100 else 1)  # nothing was in the lake: all is read again
    assert world.online_ids() == list(range(25))
    assert world.online.watermark(VIEW) > 0
    processor.flush()
    assert world.in_lake() == list(range(25))
    world.parts = dataclasses.replace(world.parts, refill=None)
    server.kill()
    server.start()
    alone = world.processor()
    with pytest.raises(Unavailable, match="lost events"):
        alone.step()
    assert world.online.watermark(VIEW) == 0


def test_a_version_that_is_added_gets_what_the_lake_has_and_what_is_pending_and_is_complete_only_then(
    make: Make, stream: RedisStream, clock: ManualClock
) -> None:
    topic = stream.create(TOPIC, partitions=2)
    world = make(segment_rows=5, batch_rows=10)
    added = dataclasses.replace(VIEW, name="added")
    processors = [world.processor(partition) for partition in range(2)]
    sent = 0
    for processor in processors:
        stream.publish(topic, [message(event) for event in payments(sent, 30)])
        sent += 30
        for other in processors:
            drain(other)
        if processor is processors[0]:
            processor.feed(SOURCE, (VIEW, added))
            drain(processor)
            clock.advance(SECOND)
            processor.step()
            complete = world.online.watermark(added)
            assert complete < clock.now() - SECOND, "the other partition feeds it not yet"
    assert world.online_ids(VIEW) == list(range(60))
    assert world.online_ids(added) != list(range(60))
    world.parts = dataclasses.replace(world.parts, views=(VIEW, added))
    processors[1].feed(SOURCE, (VIEW, added))
    for processor in processors:
        processor.step()
    assert world.online_ids(added) == world.online_ids(VIEW) == list(range(60))
    assert world.online.watermark(added) == clock.now()
    processors[0].feed(SOURCE, (added,))
    stream.publish(topic, [message(event) for event in payments(60, 10)])
    for processor in processors:
        drain(processor)
        processor.flush()
    assert world.online_ids(added) == world.in_lake() == list(range(70))
    assert len(world.online_ids(VIEW)) < 70, "one partition feeds it no more"


def test_a_column_that_is_added_is_known_from_then_on(make: Make, stream: RedisStream, topic: Topic) -> None:
    processor = make().processor()
    stream.publish(topic, [message(payments(0, 1)[0], color="red")])
    drain(processor)
    assert list(processor.progress.unknown) == ["color"]
    processor.feed(dataclasses.replace(SOURCE, columns={**SOURCE.columns, "color": "string"}), (VIEW,))
    stream.publish(topic, [message(payments(1, 1)[0], color="red")])
    drain(processor)
    assert not processor.progress.unknown


def test_who_may_not_ingest_writes_nothing(make: Make, stream: RedisStream, topic: Topic) -> None:
    stream.publish(topic, [message(event) for event in payments(0, 3)])
    world = make()
    world.parts = dataclasses.replace(world.parts, principal=lambda: principal("ingest:other"))
    with pytest.raises(Forbidden):
        world.processor().step()
    assert world.online_ids() == []


def test_a_view_that_would_refuse_events_is_refused(make: Make) -> None:
    with pytest.raises(DefinitionError, match="cannot give an event back"):
        make(views=(dataclasses.replace(VIEW, overflow=Overflow.REJECT),))
