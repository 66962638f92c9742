"""Events over HTTP: `POST /v1/events/<source>` on the local platform, answered once the stream's server synced them.

HAProxy, JWT, limits, judgement by the processor's decoder, a topic of four partitions with an fsync per write, nobody
reading. One replica, one generator, one machine; connections belong to clients of their own, as limits count by client.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.harness import Collector, Report
from benchmarks.load import ROOT, measure, post, write_requests
from headway.cluster.compose import Installation
from headway.core.progress import RecordedProgress

OURS = "headway"
_SOURCE = "transactions"
_PARTITIONS, _CAPACITY = 4, 4_000_000
_BODIES = 256
_CASES = ((1, 1), (1, 32), (100, 1), (100, 8))
"""Events per request, connections."""


def benchmark(*, quick: bool = False) -> Report:
    """Run everything and return the report."""
    runs, seconds = (1, 2.0) if quick else (5, 3.0)
    collector = Collector("events")
    work = Path(tempfile.mkdtemp(prefix="he"))
    try:
        with _endpoint(work) as at:
            found = {
                case: _case(collector, at, work / "requests.bin", *case, runs=runs, seconds=seconds) for case in _CASES
            }
    finally:
        shutil.rmtree(work, ignore_errors=True)
    collector.hold("events/s, 100 per request, 8 connections", found[100, 8][0], "1/s", ">=", 20_000)
    collector.hold("p99 to answer, 1 event per request, 1 connection", found[1, 1][1], "ms", "<=", 50)
    return collector.report()


def _case(
    collector: Collector, at: Installation, requests: Path, size: int, connections: int, *, runs: int, seconds: float
) -> tuple[float, float]:
    """Return the medians of events per second and of the p99 in milliseconds."""
    from headway.features.streams.drivers.redis import RedisStream

    stream = at.stream
    assert isinstance(stream, RedisStream)
    write_requests(requests, _requests(at, size))
    results = []
    for _ in range(runs):
        stream.delete(_SOURCE)
        topic = stream.create(_SOURCE, partitions=_PARTITIONS, capacity=_CAPACITY)
        results.append(measure(OURS, at.settings.http_port, connections, seconds, requests))
        there = sum(stream.bounds(topic, partition).end for partition in range(_PARTITIONS))
        assert there >= size * results[-1]["requests"], "answered events are not in the stream"
    stream.delete(_SOURCE)
    case = f"{size} per request, {connections} connections"
    collector.add(OURS, case, "requests per second", "1/s", [result["rps"] for result in results])
    rate = collector.add(OURS, case, "events per second", "1/s", [size * result["rps"] for result in results])
    collector.add(OURS, case, "p50 to answer", "ms", [result["p50_ms"] for result in results])
    p99 = collector.add(OURS, case, "p99 to answer", "ms", [result["p99_ms"] for result in results])
    collector.add(OURS, case, "generator", "share of a core", [result["cpu"] for result in results])
    print(f"{case}: {rate:,.0f} events/s, p99 {p99:.1f} ms", flush=True)
    return rate, p99


def _requests(at: Installation, size: int) -> list[bytes]:
    from headway.cluster.local.tokens import request_token

    scopes, random, now = [f"ingest:{_SOURCE}"], np.random.default_rng(3), at.clock.now()
    tokens = [
        request_token(at.settings, sub=f"till-{i}", kind="workload", scopes=scopes, purpose="benchmark")
        for i in range(16)
    ]
    cards = random.integers(0, 5_000, (_BODIES, size)).tolist()
    amounts = random.gamma(2.0, 40.0, (_BODIES, size)).round(2).tolist()
    bodies = [
        [
            {
                "transaction_id": i * size + j, "customer_id": cards[i][j], "terminal_id": j, "amount": amounts[i][j],
                "event_time": now,
            }
            for j in range(size)
        ]
        for i in range(_BODIES)
    ]  # fmt: skip
    return [
        post(
            f"/v1/events/{_SOURCE}",
            msgspec.json.encode(body[0] if size == 1 else {"events": body}),
            {"authorization": f"Bearer {tokens[i % len(tokens)]}"},
        )
        for i, body in enumerate(bodies)
    ]


@contextmanager
def _endpoint(work: Path) -> Iterator[Installation]:
    from headway.cluster.local.lifecycle import down, up
    from headway.core.settings import load_settings

    settings = load_settings(home=work / "home", project=ROOT)
    up(settings, RecordedProgress())
    try:
        from headway.cluster.events import deploy_events

        at = Installation.running(writer="benchmark", home=work / "home", project=ROOT)
        deploy_events(at)
        yield at
    finally:
        import ray

        ray.shutdown()
        down(settings)
