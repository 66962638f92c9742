"""Spikes over a base of 50 requests/s: ten and a hundred times as much, in an open loop, under the contract as written.

The ceiling is the contract's 2,000 rows/s and every client has its limit of 200. One client sends the base. Half of the
spike comes from clients within their limits, together above the ceiling: a replica that cannot keep up sheds them
(503). The other half comes from greedy clients: what is above their limit is refused (429). What is admitted must stay
within the latency clause, what is not must hear when to come back, and nobody may be left without an answer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.harness import Collector
from benchmarks.serving.ours import HEADWAY, Ours
from benchmarks.serving.sustained import P99_MS
from benchmarks.stage import contract_as_written
from benchmarks.traffic import UNANSWERED, Plan, Stream, Traffic, offer
from headway.core.progress import Progress

_BASE = 50.0
_FAIR, _GREEDY = 180.0, 400.0
"""Requests per second of a client within its limit of 200, and of one above it."""
_BEFORE_S, _AFTER_S = 5.0, 10.0
_NORMAL_S = 5.0
_HANG_MS = 5_000.0
_REFUSALS = (429, 503)
_CONNECTIONS = 1_024
_HELD = 100


def measure(collector: Collector, ours: Ours, progress: Progress, *, quick: bool) -> None:
    """Run both spikes and hold the bars on the greater one."""
    ours.deploy(contract_as_written())
    for times, seconds in ((10, 3.0 if quick else 10.0), (_HELD, 6.0 if quick else 60.0)):
        case = f"{times}× spike for {seconds:g} s"
        with progress.stage(case) as stage:
            traffic = _run(ours, times, seconds)
            end = _BEFORE_S + seconds
            in_spike = (traffic.due >= _BEFORE_S) & (traffic.due < end)
            admitted = in_spike & (traffic.status == 200)
            refused = np.isin(traffic.status, _REFUSALS)
            hangs = (traffic.status == UNANSWERED) | (traffic.latency > _HANG_MS)
            failed = ~refused & (traffic.status != 200) & ~hangs
            silent = refused & ~traffic.retry_after
            numbers = {
                "offered": (float(in_spike.sum()) / seconds, "requests/s"),
                "admitted": (float(admitted.sum()) / seconds, "requests/s"),
                "refused above a client's limit": (float((traffic.status == 429).sum()), "requests"),
                "shed for lateness": (float((traffic.status == 503).sum()), "requests"),
                "failed otherwise": (float(failed.sum()), "requests"),
                "hangs": (float(hangs.sum()), "requests"),
                "admitted, p50": (traffic.quantile(0.5, admitted), "ms"),
                "admitted, p99": (traffic.quantile(0.99, admitted), "ms"),
                "refused, p99": (traffic.quantile(0.99, refused) if refused.any() else 0.0, "ms"),
                "until service was normal": (until_normal(traffic, end), "s"),
                "generator": (traffic.cpu, "share of a core"),
            }
            for metric, (value, unit) in numbers.items():
                collector.add(HEADWAY, case, metric, unit, [value])
            stage.note(f"{numbers['admitted'][0]:,.0f} of {numbers['offered'][0]:,.0f} requests/s admitted")
            stage.note(f"p99 {numbers['admitted, p99'][0]:.1f} ms")
            if times == _HELD:
                _hold(collector, case, numbers, refused=float(refused.sum()), silent=float(silent.sum()))


def _hold(
    collector: Collector, case: str, numbers: dict[str, tuple[float, str]], *, refused: float, silent: float
) -> None:
    def most(what: str, metric: str, bar: float) -> None:
        value, unit = numbers[metric]
        collector.hold(f"{case}: {what}", value, unit, "<=", bar)

    most("hangs", "hangs", 0)
    most("failures that are no refusals", "failed otherwise", 0)
    most("p99 of admitted requests", "admitted, p99", P99_MS)
    most("until service was normal", "until service was normal", _NORMAL_S)
    collector.hold(f"{case}: refused requests", refused, "requests", ">=", 1)
    collector.hold(f"{case}: refusals without Retry-After", silent, "requests", "<=", 0)


def until_normal(traffic: Traffic, end: float) -> float:
    """Return the seconds after the spike's end from which on every answer was 200 and within the latency clause.

    One late answer of a hundred is normal: it is what a p99 allows.
    """
    after = traffic.due >= end
    good = (traffic.status == 200) & (traffic.latency <= P99_MS)
    bad = np.flatnonzero(after & ~good)
    allowed = int(0.01 * int(after.sum()))
    if len(bad) <= allowed:
        return 0.0
    return float(traffic.due[bad[len(bad) - 1 - allowed]] - end)


def _run(ours: Ours, times: int, seconds: float) -> Traffic:
    end = _BEFORE_S + seconds
    base = Stream(requests=str(ours.requests("base")), rate=_BASE, start=0.0, end=end + _AFTER_S)
    clients = [
        Stream(requests=str(ours.requests(f"client-{index}")), rate=rate, start=_BEFORE_S, end=end)
        for index, rate in enumerate(client_rates(_BASE * (times - 1)))
    ]
    plan = Plan(port=ours.port, streams=[base, *clients], connections=_CONNECTIONS, patience_s=_HANG_MS / 1e3)
    return offer(HEADWAY, plan, ours.work)


def client_rates(total: float) -> Iterator[float]:
    """Split a rate among clients: half by greedy ones, the rest by those within their limits."""
    for rate, share in ((_GREEDY, total / 2), (_FAIR, total / 2)):
        count = max(1, round(share / rate))
        yield from [share / count] * count
