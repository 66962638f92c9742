"""Faults of what a stream brings: poison, drift, clocks, duplicates, old events, topics that go."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time

import pytest

from headway.core.clock import SystemClock
from headway.core.times import DAY, HOUR, MINUTE
from headway.features.lake.tables import Location
from headway.features.streams.drivers import open_stream
from headway.features.streams.drivers.redis import RedisStream
from tests.faults.running import Place, Running, payments_now
from tests.faults.scorecard import Record, record
from tests.features.oracle import Event
from tests.features.streams.kafka import MockKafka
from tests.features.streams.world import TOPIC, VIEW, message
from tests.features.valkey import Valkey


@pytest.fixture
def place(topics: Valkey, features: Valkey, lake: Location) -> Place:
    return Place(features.url, lake, stream=topics.url, control=topics.url)


def test_poison(place: Place, record_property: Record) -> None:
    poison = [
        b"\xff\x00", b"", b"[]", b"{", b"null", b'{"payment": 1}', b'{"payment": "x"}', b"[" * 5_000, b"{}" * 9,
        b'{"payment": 1, "card": 1, "amount": 1e999, "event_time": 1}',
        b'{"payment": 9223372036854775808, "card": 1, "amount": 1, "event_time": 1}',
        b'{"payment": 1, "card": 1, "amount": 1, "event_time": -9e18}',
    ]  # fmt: skip
    with Running(place) as running:
        for first in range(0, 600, 100):
            running.publish(payments_now(first, 100))
            running.send([(b"k", value) for value in poison])
        seconds = running.until_safe()
        dead = place.world().dead()
        assert dead.total() == 6 * len(poison)
        assert set(dead.values()) == {1}
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="poison events", sent=600, unit="events", lost=lost, twice=twice,
        seconds=seconds, done=f"{dead.total()} messages among them are no events; each a dead letter",
    )  # fmt: skip


def test_schema_drift(place: Place, record_property: Record) -> None:
    with Running(place) as running:
        running.publish(payments_now(0, 200))
        running.publish(payments_now(200, 200), color="red")  # one more column
        drifted = payments_now(400, 200)
        running.send([message(event, card=str(event.key)) for event in drifted[:100]])  # another type
        renamed = [value.replace(b'"amount"', b'"sum"') for _, value in map(message, drifted[100:])]
        running.send([(b"k", value) for value in renamed])
        running.publish(payments_now(600, 200))
        seconds = running.until_safe()
        assert place.world().dead().total() == len(drifted)
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="schema drift", sent=800, unit="events", lost=lost, twice=twice,
        seconds=seconds,
        done="a new column (left out, alarmed), then another type and a renamed column: 200 dead letters with a reason",
    )  # fmt: skip


def test_a_topic_that_disappears(place: Place, record_property: Record) -> None:
    stream = RedisStream(place.stream)
    with Running(place) as running:
        running.publish(payments_now(0, 300))
        running.until_safe()
        stream.delete(TOPIC)
        time.sleep(2.0)
        stream.create(TOPIC, partitions=1)
        running.publish(payments_now(300, 300))
        seconds = running.until_safe()
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="a topic disappears, Redis", sent=600, unit="events", lost=lost,
        twice=twice, seconds=seconds, done="deleted once it was read; made anew 2 s later",
    )  # fmt: skip


def test_a_topic_that_disappears_from_kafka(
    topics: Valkey, features: Valkey, lake: Location, record_property: Record
) -> None:
    cluster = MockKafka()
    cluster.create(TOPIC, 1)
    place = Place(features.url, lake, stream=f"kafka://{cluster.servers}", control=topics.url)
    with Running(place) as running:
        running.publish(payments_now(0, 300))
        cluster.vanish(TOPIC)
        time.sleep(2.0)
        cluster.appear(TOPIC)
        running.publish(payments_now(300, 300))
        seconds = running.until_safe()
        lost, twice = running.balance()
    cluster.close()
    record(
        record_property, area="streams", fault="a topic disappears, Kafka", sent=600, unit="events", lost=lost,
        twice=twice, seconds=seconds, done="unknown to the broker for 2 s while messages waited",
    )  # fmt: skip


def test_a_kafka_broker_that_is_away(topics: Valkey, features: Valkey, lake: Location, record_property: Record) -> None:
    cluster = MockKafka()
    cluster.create(TOPIC, 1)
    place = Place(features.url, lake, stream=f"kafka://{cluster.servers}", control=topics.url)
    with Running(place) as running:
        running.publish(payments_now(0, 300))
        cluster.down()
        time.sleep(3.0)
        cluster.up()
        running.publish(payments_now(300, 300))
        seconds = running.until_safe()
        lost, twice = running.balance()
    cluster.close()
    record(
        record_property, area="streams", fault="the Kafka broker is away", sent=600, unit="events", lost=lost,
        twice=twice, seconds=seconds, done="down for 3 s while messages waited",
    )  # fmt: skip


def test_clock_skew_of_a_producer(place: Place, record_property: Record) -> None:
    clock = SystemClock()
    with Running(place) as running:
        for number, skew in enumerate((0, 30 * MINUTE, -2 * HOUR, -DAY)):
            events = payments_now(100 * number, 100)
            running.publish(
                [dataclasses.replace(e, event_time=e.event_time + skew, known_time=e.known_time + skew) for e in events]
            )
        ahead = payments_now(400, 100)
        running.send(
            [message(e, event_time=e.event_time + 2 * HOUR, known_time=e.known_time + 2 * HOUR) for e in ahead]
        )
        seconds = running.until_safe()
        world = place.world()
        assert world.dead().total() == len(ahead)
        assert 0 < world.online.watermark(VIEW) <= clock.now(), "a producer's clock does not make a view complete"
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="clock skew of a producer", sent=400, unit="events", lost=lost,
        twice=twice, seconds=seconds,
        done="30 min ahead, 2 h and 1 d behind: taken, watermarks follow our clock; 2 h ahead: 100 dead letters",
    )  # fmt: skip


def _produce(url: str, events: list[Event]) -> None:
    stream = open_stream(url)
    topic = stream.topic(TOPIC)
    for begin in range(0, len(events), 50):
        stream.publish(topic, [message(event) for event in events[begin : begin + 50]])


def test_duplicate_producers(place: Place, record_property: Record) -> None:
    events = payments_now(0, 1_000)
    with Running(place) as running:
        producers = [
            multiprocessing.get_context("forkserver").Process(target=_produce, args=(place.stream, events))
            for _ in range(3)
        ]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        running.sent += 3 * events
        seconds = running.until_safe()
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="duplicate producers", sent=3_000, unit="messages", lost=lost,
        twice=twice, seconds=seconds, done="three send the same 1,000 events at once; each counts once in a feature",
    )  # fmt: skip


def test_an_event_older_than_all_state(place: Place, record_property: Record) -> None:
    """The lake takes it; online it changes nothing, for no window reaches it."""
    with Running(place) as running:
        running.publish(payments_now(0, 300))
        running.until_safe()
        old = [Event(i % 7, 1_000 + i, 1_000 + i, 1_000 + i, i) for i in range(100)]
        running.send([message(event) for event in old])
        running.publish(payments_now(300, 100))
        seconds = running.until_safe()
        in_lake = place.world().in_lake()
        assert [number for number in in_lake if number >= 1_000] == [event.id for event in old]
        lost, twice = running.balance()
        twice -= len(old)  # those in the lake, which the balance does not know as sent
    record(
        record_property, area="streams", fault="an event older than all state", sent=500, unit="events", lost=lost,
        twice=twice, seconds=seconds, done="100 events of 1970 among those of now: in the lake, and in no window",
    )  # fmt: skip
