"""The highest rate that one replica sustains in an open loop, and latency at 70 % of it.

Sustained: at most one request of a thousand fails, and 99 % of what was offered was answered before the schedule ended.
The rate is found by halving an interval around what a closed loop reached; a rate has two tries, since a neighbour on
the machine can spoil one.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Collector
from benchmarks.load import measure as closed_loop
from benchmarks.serving.ours import HEADWAY, Ours
from benchmarks.traffic import Plan, Stream, Traffic, offer
from headway.core.progress import Progress

P99_MS = 45.0
"""The contract's."""
_ERRORS, _ACHIEVED = 0.001, 0.99
_HIGH = 1.5
_LOAD = 0.7


def measure(collector: Collector, ours: Ours, progress: Progress, *, quick: bool) -> None:
    """Record the rate and hold the bar on p99."""
    ours.deploy()
    with progress.stage("open loop") as stage:
        rate = highest(ours, seconds=2.0 if quick else 5.0, steps=3 if quick else 6)
        collector.add(HEADWAY, "open loop", "highest sustained rate", "requests/s", [rate])
        requests = ours.requests()
        runs = [
            at(ours, _LOAD * rate, 3.0 if quick else 15.0, requests, seed=seed) for seed in range(1 if quick else 3)
        ]
        case = "open loop, 70 % of the highest sustained rate"
        collector.add(HEADWAY, case, "offered", "requests/s", [_LOAD * rate])
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)):
            found = collector.add(HEADWAY, case, name, "ms", [run.quantile(q) for run in runs])
            if q == 0.99:
                collector.hold(f"{case}: p99", found, "ms", "<=", P99_MS)
                stage.note(f"{rate:,.0f} requests/s sustained, p99 {found:.1f} ms at 70 %")
        collector.add(HEADWAY, case, "errors", "share", [run.error_share for run in runs])
        collector.add(HEADWAY, case, "generator", "share of a core", [run.cpu for run in runs])


def highest(ours: Ours, *, seconds: float, steps: int, p99_ms: float | None = None) -> float:
    """Return the highest rate that holds, with `p99_ms` also within that latency; RuntimeError if none does."""
    requests = ours.requests()
    guess = float(closed_loop(HEADWAY, ours.port, 32, min(seconds, 2.0), requests)["rps"])
    low, high = 0.0, _HIGH * guess
    for step in range(steps):
        rate = (low + high) / 2
        if any(holds(at(ours, rate, seconds, requests, seed=2 * step + again), p99_ms) for again in range(2)):
            low = rate
        else:
            high = rate
    if not low:
        raise RuntimeError(f"not even {high:.0f} requests/s are sustained; a closed loop reached {guess:.0f}")
    return low


def holds(traffic: Traffic, p99_ms: float | None = None) -> bool:
    """Whether the rate was sustained."""
    sustained = traffic.error_share <= _ERRORS and traffic.achieved >= _ACHIEVED
    return sustained and (p99_ms is None or traffic.quantile(0.99) <= p99_ms)


def at(ours: Ours, rate: float, seconds: float, requests: Path, *, seed: int) -> Traffic:
    """Offer a rate for a while."""
    stream = Stream(requests=str(requests), rate=rate, start=0.0, end=seconds)
    return offer(HEADWAY, Plan(port=ours.port, streams=[stream], patience_s=5.0, seed=seed + 1), ours.work)
