"""Kills: processors in processes of their own, killed −9 at random while a topic is filled as fast as it takes it.

Each of two partitions has a process that decodes, merges, writes and commits. A publisher in another process fills
both without a pause, held back by the topic alone: Redis refuses when 100,000 messages wait; Kafka does not, and its
publisher waits as long as the checkpoint is 10,000 behind (librdkafka's mock of a broker forgets after 5 MiB). One of
the two processes, by chance, is killed up to a second after it began to work, and another takes its place. Segments are
of a second and not of ten, so that kills meet commits. What lake and online store hold in the end is compared, event by
event, with what one batch makes of all that was sent.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import redis

from benchmarks.harness import Collector
from benchmarks.stream_world import Place, lake_ids, processor, servers
from headway.core.control import RedisControlStore
from headway.core.errors import Unavailable
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.arrow import conform, events_of, needed
from headway.features.streams.checkpoint import read
from headway.features.streams.drivers import open_stream
from headway.features.streams.port import EventStream, Topic
from headway.features.streams.segment import Limits
from headway.features.windows import codec

PARTITIONS = 2
_CARDS = 20_000
_BATCH = 400
_CAPACITY = 100_000
_MOST_BEHIND = 10_000
_LONGEST_LIFE_S = 1.0
_PRELOADED = ("benchmarks.stream_kills", "features.fraud", "pyiceberg.catalog.sql", "pyiceberg.io.pyarrow")


def measure(collector: Collector, system: str, driver: str, kills: int) -> None:
    """Run it over one driver and record what was lost and what was counted twice."""
    from features.fraud import card_activity, transactions

    case = f"{kills} kills at full load, {driver}"
    folder = tempfile.TemporaryDirectory(prefix="hs")
    with folder as name, servers(Path(name)) as place, _stream(driver, place, transactions.name) as url:
        began = time.perf_counter()
        sent, base, recoveries, waiting = _killed(place, url, kills)
        took = time.perf_counter() - began
        ids = lake_ids(place, transactions)
        once = np.unique(ids)
        wrong = _unlike(place, card_activity, _table(base, np.arange(sent)))
        counted = sum(read(RedisControlStore(place.control), _topic(url), p).rows for p in range(PARTITIONS))
    collector.add(system, case, "events", "count", [float(sent)])
    collector.add(system, case, "events per second, kills included", "1/s", [sent / took])
    collector.add(system, case, "messages that were not safe at a kill", "count", waiting)
    collector.add(system, case, "from a kill to the successor's claim", "s", recoveries)
    collector.hold(f"{case}: events lost in the lake", float(sent - len(once)), "count", "<=", 0)
    collector.hold(f"{case}: events twice in the lake", float(len(ids) - len(once)), "count", "<=", 0)
    collector.hold(f"{case}: cards unlike the batch oracle online", float(wrong), "count", "<=", 0)
    collector.hold(f"{case}: checkpoints' count beside the events", float(abs(counted - sent)), "count", "<=", 0)


def _killed(place: Place, url: str, kills: int) -> tuple[int, int, list[float], list[float]]:
    """Fill, kill, and drain; return events sent, from which time on, by kill the seconds lost and messages at stake."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    stop, total, base = context.Event(), context.Value("q", 0), time.time_ns() // 1_000
    publisher = context.Process(target=_publish, args=(place, url, base, stop, total))
    publisher.start()
    draw, recoveries, waiting = random.Random(13), list[float](), list[float]()
    stream, topic, control = open_stream(url), _topic(url), RedisControlStore(place.control)

    def start(partition: int) -> BaseProcess:
        before = read(control, topic, partition).epoch
        process = context.Process(target=_process, args=(place, url, partition))
        process.start()
        _until(lambda: read(control, topic, partition).epoch > before and process.is_alive(), 60)
        return process

    running = {partition: start(partition) for partition in range(PARTITIONS)}
    try:
        for _ in range(kills):
            partition = draw.randrange(PARTITIONS)
            time.sleep(draw.uniform(0.0, _LONGEST_LIFE_S))
            assert running[partition].is_alive()
            waiting.append(float(_behind(stream, control, topic, partition)))
            running[partition].kill()
            running[partition].join()
            at = time.perf_counter()
            running[partition] = start(partition)
            recoveries.append(time.perf_counter() - at)
            assert publisher.is_alive()
        stop.set()
        publisher.join(60)
        assert publisher.exitcode == 0
        for partition in running:
            end = stream.bounds(topic, partition).end
            _until(lambda p=partition, end=end: read(control, topic, p).offset >= end, 300)  # type: ignore[misc]  # mypy infers no lambda with defaults
    finally:
        for process in (publisher, *running.values()):
            process.kill()
            process.join()
    return int(total.value), base, recoveries, waiting


def _process(place: Place, url: str, partition: int) -> None:
    """Process one partition until killed."""
    from features.fraud import card_activity, transactions

    rows = _MOST_BEHIND // 2 if url.startswith("kafka") else 20_000
    limits = Limits(segment_rows=rows, segment_age=1_000_000)
    mine = processor(place, transactions, card_activity, partition=partition, stream_url=url, limits=limits)
    while True:
        try:
            mine.step(0.1)
        except Unavailable as error:
            print(f"partition {partition} waits: {error}", file=sys.stderr)
            time.sleep(0.05)


def _publish(place: Place, url: str, base: int, stop: Any, total: Any) -> None:
    """Publish without a pause, each partition's messages by themselves, so that a refusal leaves none behind."""
    stream, topic, control = open_stream(url), _topic(url), RedisControlStore(place.control)
    first = 0
    while not stop.is_set():
        rows = _table(base, np.arange(first, first + PARTITIONS * _BATCH)).to_pylist()
        values = [msgspec.json.encode(row) for row in rows]
        for partition, key in enumerate(_keys()):
            mine = [(key, value) for value in values[partition::PARTITIONS]]
            while url.startswith("kafka") and _behind(stream, control, topic, partition) > _MOST_BEHIND:
                time.sleep(0.005)
            while True:
                try:
                    stream.publish(topic, mine)
                    break
                except Unavailable:
                    time.sleep(0.01)
        first += PARTITIONS * _BATCH
    total.value = first


def _behind(stream: EventStream, control: RedisControlStore, topic: Topic, partition: int) -> int:
    return stream.bounds(topic, partition).end - read(control, topic, partition).offset


def _keys() -> list[bytes]:
    """Return one key of each partition."""
    from headway.features.streams.port import partition_of

    found = {partition_of(key, PARTITIONS): key for key in (str(i).encode() for i in range(64))}
    return [found[partition] for partition in range(PARTITIONS)]


def _table(base: int, ids: Any) -> pa.Table:
    """Return the transactions of ids; a card's are all in one partition, that of its parity."""
    mixed = (ids // PARTITIONS * 2_654_435_761) % (2**32)
    return pa.table(
        {
            "transaction_id": ids,
            "customer_id": mixed % (_CARDS // PARTITIONS) * PARTITIONS + ids % PARTITIONS,
            "terminal_id": mixed % 997,
            "amount": (mixed % 10_000) / 100,
            EVENT_TIME: base + ids,
            KNOWN_TIME: base + ids,
        }
    )


def _unlike(place: Place, view: Any, sent: pa.Table) -> int:
    """Return how many cards online hold something else than the newest of what a batch makes of all events."""
    expected = events_of(view, conform(view.source, sent, needed(view)))
    client = redis.Redis.from_url(place.features)
    names = [codec.prefix(view) + str(key).encode() for key in expected.keys.tolist()]
    found, _ = codec.unpack(view, client.mget(names))
    wrong = 0
    for i in range(len(expected.keys)):
        own = expected.records[expected.offsets[i] : expected.offsets[i + 1]]
        held = found.records[found.offsets[i] : found.offsets[i + 1]]
        enough = len(held) == len(own) or len(held) >= view.max_events
        wrong += not (enough and np.array_equal(held, own[-len(held) :]))
    return wrong + len(list(client.scan_iter(match=codec.prefix(view) + b"*", count=10_000))) - len(expected.keys)


@contextmanager
def _stream(driver: str, place: Place, name: str) -> Iterator[str]:
    """Make the topic; yield the stream's address."""
    if driver == "redis":
        from headway.features.streams.drivers.redis import RedisStream

        RedisStream(place.features).create(name, partitions=PARTITIONS, capacity=_CAPACITY)
        yield place.features
        return
    from tests.features.streams.kafka import MockKafka

    cluster = MockKafka()
    cluster.create(name, PARTITIONS)
    yield f"kafka://{cluster.servers}"
    cluster.close()


def _topic(url: str) -> Topic:
    from features.fraud import transactions

    return open_stream(url).topic(transactions.name)


def _until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not go on"
        time.sleep(0.005)
