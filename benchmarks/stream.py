"""Streams: fraud's events from a topic through its windows into the online store and the lake.

Rate: transactions and outcomes of the simulated history, published before, are drained into `card_activity` and
`terminal_risk`, whose state holds the days before. Events per core are events over the processor time of the process
that decodes, merges, writes and commits; the servers' time is given beside it.

Latency and burst: an open loop publishes transactions at a steady rate from another process than the one that processes
them; every 20 ms one of a card that nobody else uses, and the time until its state is in the online store is taken. The
lake's commits run in the same process and are part of it. Then ten times the rate; in the end lake and online store are
compared with what was sent. The cores that publisher, processor and servers took say who was the bottleneck.

Kills: `stream_kills`.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import redis

from benchmarks import stream_kills
from benchmarks.harness import Collector, Report
from benchmarks.stream_load import Load
from benchmarks.stream_world import Place, lake_ids, processor, servers, spent
from headway.core.control import RedisControlStore
from headway.core.times import EVENT_TIME
from headway.features.definitions import WindowView
from headway.features.online_store import OnlineStore
from headway.features.streams.checkpoint import read
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import Topic
from headway.features.streams.segment import Limits
from headway.features.windows import codec

OURS = "headway streams"
_CAPACITY = 5_000_000


@dataclass(frozen=True, kw_only=True)
class _Effort:
    """How much is measured."""

    runs: int
    days: int
    """Of history that is drained; as many fill the state before."""
    rate: int
    steady_s: float
    burst_s: float
    kills: int


def benchmark(*, quick: bool = False) -> Report:
    """Run everything and return the report."""
    effort = _Effort(runs=5, days=14, rate=2_000, steady_s=30.0, burst_s=60.0, kills=50)
    if quick:
        effort = _Effort(runs=2, days=4, rate=1_000, steady_s=4.0, burst_s=3.0, kills=4)
    collector = Collector("stream")
    per_core, wall, with_servers = [], [], []
    for _ in range(effort.runs):
        with tempfile.TemporaryDirectory(prefix="hs") as folder, servers(Path(folder)) as place:
            measured = _drain(place, effort)
        per_core.append(measured[0])
        wall.append(measured[1])
        with_servers.append(measured[2])
    case = "fraud's events into two views and the lake"
    rate = collector.add(OURS, case, "events per second and core", "1/s", per_core)
    collector.add(OURS, case, "the same, with the servers' processor time", "1/s", with_servers)
    collector.add(OURS, case, "events per second, one processor", "1/s", wall)
    collector.hold("events per second and core through fraud's windows", rate, "1/s", ">=", 20_000)
    with tempfile.TemporaryDirectory(prefix="hs") as folder, servers(Path(folder)) as place:
        _open_loop(collector, place, effort)
    for driver in ("redis", "kafka"):
        stream_kills.measure(collector, OURS, driver, effort.kills)
    return collector.report()


def _drain(place: Place, effort: _Effort) -> tuple[float, float, float]:
    """Return events per second of this process's processor time, of the clock, and with the servers' time too."""
    from features.fraud import fraud_outcomes, fraud_v1, transactions
    from features.simulators.fraud import tables

    views = {view.source.name: view for view in fraud_v1.stored if isinstance(view, WindowView)}
    history = tables(11, days=2 * effort.days)
    store, stream, events = OnlineStore(place.features), RedisStream(place.features), 0
    processors = []
    for source in (transactions, fraud_outcomes):
        rows = history[source.name].sort_by(EVENT_TIME)
        half = rows.num_rows // 2
        store.write(views[source.name], rows.slice(0, half))
        topic = stream.create(source.name, partitions=1, capacity=_CAPACITY)
        for batch in rows.slice(half).to_batches(max_chunksize=5_000):
            stream.publish(topic, [(b"", msgspec.json.encode(row)) for row in batch.to_pylist()])
        events += rows.num_rows - half
        processors.append(processor(place, source, views[source.name]))
    for each in processors:
        each.step()
    done = sum(each.progress.pending_rows for each in processors)
    taken = sum(spent(pid) for pid in place.pids)
    start, began = time.process_time(), time.perf_counter()
    for each in processors:
        while each.step():
            pass
        each.flush()
    own, took = time.process_time() - start, time.perf_counter() - began
    taken = sum(spent(pid) for pid in place.pids) - taken
    assert sum(each.progress.rows for each in processors) == events
    return (events - done) / own, (events - done) / took, (events - done) / (own + taken)


def _process(place: Place) -> None:
    """Process transactions until killed, in a process of its own."""
    from features.fraud import card_activity, transactions

    mine = processor(place, transactions, card_activity)
    while True:
        mine.step(0.5)


def _open_loop(collector: Collector, place: Place, effort: _Effort) -> None:
    """Measure the time until events are readable, at a steady rate and at ten times that, and that nothing is lost."""
    from features.fraud import card_activity, transactions

    stream = RedisStream(place.features)
    topic = stream.create(transactions.name, partitions=1, capacity=_CAPACITY)
    process = multiprocessing.get_context("spawn").Process(target=_process, args=(place,))
    process.start()
    assert process.pid is not None
    load, pids = Load(stream, topic, place), (process.pid, *place.pids)
    try:
        load.run(effort.rate, 2.0)
        load.settle()  # imports, first tables
        case = f"{effort.rate:,} transactions per second"
        p99 = _measured(collector, load, case, effort.rate, effort.steady_s, pids)
        case = f"burst of {10 * effort.rate:,} per second for {effort.burst_s:g} s"
        _measured(collector, load, case, 10 * effort.rate, effort.burst_s, pids)
        collector.add(OURS, case, "publications refused and repeated", "count", [float(load.refused)])
        time.sleep(Limits().segment_age / 1e6 + 1.0)  # the last segment goes to the lake
        load.settle()
        _until_safe(place, topic)
    finally:
        process.kill()
        process.join()
    collector.hold("p99 from event to readable", p99, "ms", "<=", 1_000)
    ids = lake_ids(place, transactions)
    lost = load.sent - len(np.unique(ids))
    collector.hold("burst: events lost in the lake", float(lost), "count", "<=", 0)
    collector.hold("burst: events twice in the lake", float(len(ids) - len(np.unique(ids))), "count", "<=", 0)
    client = redis.Redis.from_url(place.features)
    names = [codec.prefix(card_activity) + str(card).encode() for card in load.probes]
    missing = sum(value is None for value in client.mget(names))
    collector.hold("burst: probes missing in the online store", float(missing), "count", "<=", 0)


def _measured(collector: Collector, load: Load, case: str, rate: int, seconds: float, pids: tuple[int, ...]) -> float:
    """Publish for a while; record latency, the rate that was reached and the cores taken; return p99 in ms."""
    before = [time.process_time(), *map(spent, pids)]
    began = time.perf_counter()
    latencies, published_s = load.run(rate, seconds)
    took = time.perf_counter() - began
    used = [after - at for at, after in zip(before, [time.process_time(), *map(spent, pids)], strict=True)]
    p50, p99 = (float(value) * 1e3 for value in np.percentile(latencies, [50, 99]))
    collector.add(OURS, case, "event to readable, p50", "ms", [p50])
    collector.add(OURS, case, "event to readable, p99", "ms", [p99])
    collector.add(OURS, case, "published", "1/s", [rate * seconds / published_s])
    collector.add(OURS, case, "seconds until the lag is gone", "s", [took - published_s])
    names = ("publisher", "processor", "server of topic and features", "control store")
    for name, cores in zip(names, used, strict=True):
        collector.add(OURS, case, f"cores taken: {name}", "cores", [cores / took])
    return p99


def _until_safe(place: Place, topic: Topic) -> None:
    """Wait until the lake has all that was published."""
    stream, control = RedisStream(place.features), RedisControlStore(place.control)
    deadline = time.monotonic() + 120
    while read(control, topic, 0).offset < stream.bounds(topic, 0).end:
        assert time.monotonic() < deadline, "the lake does not get it all"
        time.sleep(0.05)
