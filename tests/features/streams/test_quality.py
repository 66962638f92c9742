from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.times import DAY, HOUR
from headway.features.lake.tables import Location
from headway.features.quality.expectations import (
    Severity,
    between,
    known_within,
    not_null,
    one_of,
    rows_per_batch,
    unique,
    usual_volume,
)
from headway.features.quality.profiles import Profiles, count
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import Topic
from headway.features.streams.processor import PartitionProcessor
from headway.features.streams.quality import Tally, broken_promises, changes, judged
from headway.features.streams.status import Budget, PartitionStatus, alarms
from tests.features.oracle import SOURCE, Event
from tests.features.samples import table
from tests.features.streams.test_processor import Killed, Killer, drain
from tests.features.streams.world import World, message, payments

Make = Callable[..., World]
PROMISES = (
    not_null("amount"),
    between("amount", 0, 20),
    one_of("payment", tuple(range(2_000))),
    between("card", 0, 5, tolerance=0.2),
    not_null("amount", severity=Severity.WARN),
    known_within("2us", tolerance=0.01),
    unique("payment"),
    rows_per_batch(1_000_000, None),
)
STRICT = dataclasses.replace(SOURCE, expectations=PROMISES)


@pytest.fixture
def make(online_url: str, lake: Location, clock: ManualClock, stream: RedisStream) -> Make:
    control = MemoryControlStore()

    def made(**given: Any) -> World:
        world = World(online_url, lake, clock, stream, control, **given)
        world.parts = dataclasses.replace(world.parts, source=STRICT)
        return world

    return made


def test_a_row_that_breaks_a_promise_is_a_dead_letter_before_anybody_sees_it(
    make: Make, stream: RedisStream, topic: Topic
) -> None:
    good = payments(0, 60)
    broken = [
        message(good[10], amount=None),
        message(good[11], amount=75),
        message(good[12], payment=5_000),
        message(good[13], card=6),  # a fifth of the rows may
    ]
    stream.publish(topic, [*map(message, good[:10]), *broken])
    world = make()
    processor = world.processor()
    drain(processor)
    served = [*range(10), 13]
    assert world.online_ids(keys=7) == served
    processor.flush()
    assert world.in_lake() == served
    reasons = [reason for _, reason in sorted(world.dead())]
    assert reasons[:2] == ["not_null(amount)", "between(amount, 0, 20)"]
    assert reasons[2].startswith("one_of(payment, 0, 1, 2, ")
    assert len(reasons[2]) == 300
    assert (world.checkpoint().rows, world.checkpoint().dead) == (11, 3)


def lines(processor: PartitionProcessor, now: int) -> list[str]:
    status = PartitionStatus(progress=processor.progress, end=0, state="running")
    return [line for line in alarms([status], [], Budget(dead_share=1.0, behind=2**62), now) if "break" in line]


def test_what_many_rows_break_is_served_and_alarmed_until_it_is_kept_again(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock
) -> None:
    world = make()
    processor = world.processor()

    def segment(events: list[Event]) -> None:
        stream.publish(topic, [message(event) for event in events])
        drain(processor)
        processor.flush()

    segment(payments(0, 100))
    assert lines(processor, clock.now()) == []
    segment([*payments(100, 50), *payments(100, 2)])
    assert lines(processor, clock.now()) == ["partition 0: unique(payment): 2 of 52 rows break it, 0 allowed"]
    late = [dataclasses.replace(event, known_time=event.known_time + 9) for event in payments(150, 8)]
    segment([*late, *payments(158, 92)])
    assert lines(processor, clock.now()) == [], "no key came twice, and 250 rows are too few for a share of 1 %"
    segment(payments(250, 250))
    told = "known_within(2us): 8 of 502 rows break it, 5 allowed"
    assert lines(processor, clock.now()) == [f"partition 0: {told}"]
    assert make().processor().progress.broken == (), "it has not looked yet"
    segment(payments(500, 500))
    assert lines(processor, clock.now()) == []
    told_first = "unique(payment): 2 of 52 rows break it, 0 allowed"
    found = [event.outcome for event in world.audit.events if event.action == "quality.promise"]
    assert found == [
        f"broken: {told_first}", "kept again: unique(payment)",
        f"broken: {told}", "kept again: known_within(2us)",
    ]  # fmt: skip
    assert world.in_lake() == sorted([*range(1_000), 100, 101])


def test_what_one_row_breaks_and_how_segments_are_cut_is_no_alarm() -> None:
    rows = table([Event(6, 1, 2, 100, 1)])
    tallies = judged(STRICT, rows, {})
    assert "between(card, 0, 5)" in tallies
    assert "between(amount, 0, 20)" not in tallies
    assert not any(name.startswith("rows_per_batch") for name in tallies)
    assert broken_promises(tallies) == ()


def test_a_share_is_judged_over_enough_rows() -> None:
    source = dataclasses.replace(SOURCE, expectations=(between("card", 0, 4, tolerance=0.1),))
    tallies: dict[str, Tally] = {}
    seen = []
    for place in range(60):
        tallies = judged(source, table([Event(6 if place < 10 else 0, 1, 2, 1, place)]), tallies)
        seen.append(bool(broken_promises(tallies)))
    assert seen.index(True) == 49, "ten of fifty"
    before = {"a": Tally(broken="a: x"), "b": Tally(rows=1)}
    assert changes(before, {"a": Tally(), "b": Tally(broken="b: y")}) == ["broken: b: y", "kept again: a"]


@pytest.mark.soak
@pytest.mark.parametrize("after", [False, True])
def test_profiles_count_each_row_once_wherever_a_processor_dies(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock, after: bool
) -> None:
    """The day's counts are those of all rows, whatever was made again."""
    sent = 0
    for at in range(40):
        world = make(batch_rows=4, segment_rows=9)
        stream.publish(topic, [message(event) for event in payments(sent, 20)])
        sent += 20
        killer = Killer(world, at=at, after=after)
        processor = world.processor()
        try:
            drain(processor)
            processor.flush()
        except Killed:
            pass
        killer.rest()
    last = make(batch_rows=7).processor()
    drain(last)
    last.flush()
    [day] = Profiles(world.parts.control).days(STRICT)
    assert day.rows == sent
    assert np.array_equal(day.counts, count(STRICT, table(payments(0, sent))))


def test_stretches_of_several_days_and_partitions_count_once_each() -> None:
    profiles = Profiles(MemoryControlStore())

    def rows(first: int, days: tuple[int, ...]) -> pa.Table:
        return table([Event(1, day * DAY, day * DAY + 1, 5, first + i) for i, day in enumerate(days)])

    for _ in range(2):
        profiles.add_stretch(SOURCE, rows(0, (3, 3, 4)), "t@x:0", 3)
        profiles.add_stretch(SOURCE, rows(3, (3, 4)), "t@x:1", 2)
    profiles.add_stretch(SOURCE, rows(5, (4,)), "t@x:0", 4)
    profiles.add_stretch(SOURCE, rows(5, (4,)), "t@y:0", 1)  # the topic was made anew
    profiles.add(SOURCE, rows(6, (4,)), "file")
    assert {day.day: day.rows for day in profiles.days(SOURCE)} == {3: 3, 4: 5}


def test_a_days_volume_is_judged_against_the_days_before_in_the_streams_own_time(
    make: Make, stream: RedisStream, topic: Topic, clock: ManualClock
) -> None:
    world = make()
    source = dataclasses.replace(SOURCE, expectations=(usual_volume(days=7),))
    world.parts = dataclasses.replace(world.parts, source=source)
    processor, sent = world.processor(), 0
    begin = clock.now() // DAY - 20
    seen = []
    for day, rows in enumerate([*[100] * 10, 400, 100, 9, 100]):
        for part in (rows // 2, rows - rows // 2):
            at = (begin + day) * DAY + 2 * HOUR
            stream.publish(topic, [message(Event(1, at, at, 1, sent + i)) for i in range(part)])
            sent += part
            drain(processor)
            processor.flush()
        seen.append([line.split(": ", 1)[1] for line in processor.progress.broken])
    assert seen[:10] == [[]] * 10
    assert [line.split(" ", 1)[1] for lines in seen[10:] for line in lines] == [
        "has 400 rows, 50 to 150 are usual", "has 400 rows, 50 to 150 are usual", "has 9 rows, 50 to 150 are usual"
    ]  # fmt: skip
    assert seen[12] == [], "the day is not over"
