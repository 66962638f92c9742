"""Ours beside a peer in closed loops: pairs of runs that follow one another, and the median of their ratios.

A full decision of ours stands against parse and predict of theirs. What the machine does to one run of a pair it does
to the other, so ratios hold where times do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import Collector
from benchmarks.load import measure
from benchmarks.serving.ours import HEADWAY, Ours, cpu_seconds
from benchmarks.serving.peers import Peer, Started, started

_METRICS = (
    ("throughput", "rps", "requests/s"),
    ("p50", "p50_ms", "ms"),
    ("p99", "p99_ms", "ms"),
    ("cpu per request", "cpu_us", "µs"),
    ("generator", "cpu", "share of a core"),
)


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """Ours over theirs, medians over the pairs."""

    throughput: float
    p50: float
    cpu: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two that are compared."""

    system: str
    port: int
    requests: Path
    processes: Callable[[], list[psutil.Process]]
    """What a request passes through, stores apart."""

    def run(self, connections: int, seconds: float) -> dict[str, Any]:
        """Measure once; `cpu_us` is of the whole run, its warm-up included."""
        processes = self.processes()
        before = cpu_seconds(processes)
        result = measure(self.system, self.port, connections, seconds, self.requests)
        return {**result, "cpu_us": (cpu_seconds(processes) - before) / result["answered"] * 1e6}


def versus(
    collector: Collector,
    ours: Ours,
    peer: Peer,
    *,
    connections: Iterable[int] = (32,),
    runs: int,
    seconds: float,
    system: str = HEADWAY,
) -> dict[int, Ratios]:
    """Start the peer and return the ratios by connections."""
    with started(peer, ours) as there:
        mine = Side(
            system=f"{system}, beside {peer.name}", port=ours.port, requests=ours.requests(), processes=ours.serving
        )
        return {
            count: _pairs(collector, mine, _side(peer, there), count, runs=runs, seconds=seconds)
            for count in connections
        }


def _side(peer: Peer, there: Started) -> Side:
    return Side(system=peer.name, port=there.port, requests=there.requests, processes=there.processes)


def _pairs(collector: Collector, ours: Side, theirs: Side, connections: int, *, runs: int, seconds: float) -> Ratios:
    case = f"{connections} connections"
    pairs = [(ours.run(connections, seconds), theirs.run(connections, seconds)) for _ in range(runs)]
    for side, results in ((ours, [a for a, _ in pairs]), (theirs, [b for _, b in pairs])):
        for metric, key, unit in _METRICS:
            collector.add(side.system, case, metric, unit, [result[key] for result in results])

    def ratio(metric: str, key: str) -> float:
        return collector.add(ours.system, case, f"{metric} ratio", "times", [a[key] / b[key] for a, b in pairs])

    return Ratios(
        throughput=ratio("throughput", "rps"), p50=ratio("p50", "p50_ms"), cpu=ratio("cpu per request", "cpu_us")
    )
