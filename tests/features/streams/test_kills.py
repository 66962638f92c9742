"""Real processes, really killed: what lake and online store hold in the end is what was sent, each event once."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Event as Flag
from threading import Thread

import numpy as np
import pytest

from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.features.arrow import events_of
from headway.features.lake.tables import Location
from headway.features.streams.drivers import open_stream
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import EventStream
from headway.features.windows.codec import prefix, unpack
from tests.faults.scorecard import Record, record
from tests.features.oracle import Event
from tests.features.samples import table
from tests.features.streams import victim
from tests.features.streams.kafka import MockKafka
from tests.features.streams.world import TOPIC, VIEW, World, message
from tests.features.valkey import Valkey

KEYS, PARTITIONS = 40, 2
_AHEAD = 15_000
"""Messages that may wait in the topic."""


@pytest.fixture(params=["redis", "kafka"])
def stream_url(request: pytest.FixtureRequest, server: Valkey) -> Iterator[str]:
    if request.param == "redis":
        RedisStream(server.url).create(TOPIC, partitions=PARTITIONS)
        yield server.url
        return
    cluster = MockKafka()
    cluster.create(TOPIC, PARTITIONS)
    yield f"kafka://{cluster.servers}"
    cluster.close()


class Producer:
    """Sends all the time, now and then something twice or something that is no event.

    It waits for who reads where it is far ahead: a broker keeps only so much, and what it drops is another test's.
    """

    def __init__(self, stream: EventStream, taken: Callable[[], int]) -> None:
        self._stream = stream
        self._taken = taken
        self._topic = stream.topic(TOPIC)
        self._draw = random.Random(7)
        self._stop = Flag()
        self.sent: list[Event] = []
        self.poison = 0
        self._thread = Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        base = SystemClock().now()
        while not self._stop.is_set():
            first = len(self.sent)
            fresh = [
                Event(self._draw.randrange(KEYS), base + i - self._draw.randrange(50), base + i, i, i)
                for i in range(first, first + 100)
            ]
            again = self._draw.sample(self.sent, 2) if self.sent else []
            batch = [*fresh, *again]
            self._draw.shuffle(batch)
            self._stream.publish(self._topic, [*map(message, batch), (b"k", b"\xff poison")])
            self.sent += batch
            self.poison += 1
            time.sleep(0.01)
            while len(self.sent) + self.poison - self._taken() > _AHEAD and not self._stop.is_set():
                time.sleep(0.01)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_kills_at_random_lose_nothing_and_count_nothing_twice(
    server: Valkey, stream_url: str, lake: Location, record_property: Record, request: pytest.FixtureRequest
) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.features.streams.victim", "pyiceberg.catalog.sql", "pyiceberg.io.pyarrow"])
    draw, kills = random.Random(11), 0
    control = RedisControlStore(server.url)
    stream = open_stream(stream_url)
    watched = World(server.url, lake, SystemClock(), open_stream(stream_url), RedisControlStore(server.url))
    producer = Producer(
        open_stream(stream_url), lambda: sum(watched.checkpoint(number).offset for number in range(PARTITIONS))
    )
    topic = stream.topic(TOPIC)
    try:
        while kills < 15:
            process = processes.Process(target=victim.run, args=(stream_url, server.url, lake, PARTITIONS))
            before = World(server.url, lake, SystemClock(), stream, control)
            epochs = [before.checkpoint(partition).epoch for partition in range(PARTITIONS)]
            process.start()
            deadline = time.monotonic() + 120
            while before.checkpoint(0).epoch == epochs[0]:  # until it works
                assert time.monotonic() < deadline
                assert process.is_alive()
                time.sleep(0.005)
            time.sleep(draw.random() * 0.7)
            assert process.is_alive()
            process.kill()
            process.join()
            kills += 1
    finally:
        producer.stop()
    began = time.monotonic()
    world = World(server.url, lake, SystemClock(), stream, control, segment_rows=5_000)
    assert all(world.checkpoint(partition).rows > 0 for partition in range(PARTITIONS))
    for partition in range(PARTITIONS):
        processor = world.processor(partition)
        end = stream.bounds(topic, partition).end
        while processor.progress.position < end:
            processor.step(1.0)
        processor.flush()
        processor.close()
    seconds = time.monotonic() - began
    assert len(producer.sent) > 2_000
    sent = Counter(event.id for event in producer.sent)
    assert Counter(world.in_lake()) == sent
    assert sum(world.dead().values()) == producer.poison
    assert set(world.dead().values()) == {1}
    expected = events_of(VIEW, table(producer.sent))
    names = [prefix(VIEW) + str(key).encode() for key in expected.keys.tolist()]
    found, _ = unpack(VIEW, world.online._client.mget(names))
    assert np.array_equal(found.offsets, expected.offsets)
    assert np.array_equal(found.records, expected.records)
    checkpoints = [world.checkpoint(partition) for partition in range(PARTITIONS)]
    assert sum(at.rows for at in checkpoints) == len(producer.sent)
    assert sum(at.dead for at in checkpoints) == producer.poison
    record(
        record_property, area="streams", fault=f"kills under load, {request.node.callspec.params['stream_url']}",
        sent=len(producer.sent), unit="events", lost=(sent - Counter(world.in_lake())).total(),
        twice=(Counter(world.in_lake()) - sent).total(), seconds=seconds,
        done=f"{kills} at random while a producer repeats itself and sends {producer.poison} messages of poison",
    )  # fmt: skip
