"""The scoreboard: each clause of the contract beside what was measured, and an honest verdict.

A verdict is "not shown" where the run could not show it: too few requests, or a clause that needs another experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from headway.cluster.demo.velocity import PAUSE_S, Velocity, grew
from headway.governance.contract import Contract
from headway.governance.report import ClauseResult

Verdict = Literal["pass", "miss", "not shown"]
_LATE_S = 0.2
"""How much later than PAUSE_S the second decision of the velocity scene may be made."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What decisions before and after a burst of events saw of it."""

    view: str
    burst: int
    counts: Mapping[str, tuple[float, float]]
    """Count → its value before and after; empty where a decision is not in the log."""
    readable_ms: float | None
    pause_s: float

    @classmethod
    def of(cls, scene: Velocity, log: pa.Table) -> Seen:
        """Return what a scene showed by the decision log."""
        return cls(
            view=scene.view,
            burst=scene.burst,
            counts=grew(scene, log),
            readable_ms=scene.readable_ms,
            pause_s=scene.pause_s,
        )

    @property
    def exact(self) -> bool:
        """Whether every count grew by the burst, no more and no less."""
        return bool(self.counts) and all(after - before == self.burst for before, after in self.counts.values())

    @property
    def facts(self) -> dict[str, Any]:
        """What the report keeps."""
        return {
            "events": self.burst,
            "readable after (ms)": None if self.readable_ms is None else round(self.readable_ms, 1),
            "decided again after (s)": round(self.pause_s, 3),
            **{name: f"{before:g} → {after:g}" for name, (before, after) in self.counts.items()},
            "seen": self.exact,
        }


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a replay observed."""

    latencies_ms: list[float]
    failures: int
    """Requests without a good answer, quota and shedding apart."""
    rate_rps: float
    labels: list[int]
    """Labels of matured decisions, 0 or 1."""
    metrics: dict[str, float]
    """Accuracy metrics of the matured decisions."""
    stale: int
    """Decisions that said that a view was stale."""
    logged: int
    """Decisions found in the lake's decision log."""
    mismatches: int
    replayed_reads: int
    velocity: Seen | None = None
    """The velocity scene; None: no view of the use case counts what is decided."""


def judge(contract: Contract, seen: Observed) -> list[ClauseResult]:
    """Return one result per measurable clause."""
    n = len(seen.latencies_ms)
    return [
        _at_most("latency.p95_ms", contract.latency.p95_ms, _quantile(seen, 0.95), "ms", n),
        _at_most("latency.p99_ms", contract.latency.p99_ms, _quantile(seen, 0.99), "ms", n),
        _throughput(contract, seen),
        _availability(contract, seen),
        *_accuracy(contract, seen),
        *_freshness(contract, seen),
        ClauseResult(
            clause="decision_log",
            target="every answer logged",
            measured=float(seen.logged),
            unit="decisions",
            verdict="pass" if seen.logged == n - seen.failures else "miss",
            n=n - seen.failures,
        ),
        ClauseResult(
            clause="no skew",
            target="0 mismatches",
            measured=float(seen.mismatches),
            unit="reads",
            verdict="not shown" if not seen.replayed_reads else "miss" if seen.mismatches else "pass",
            n=seen.replayed_reads,
        ),
        *_velocity(seen.velocity),
    ]


def _velocity(seen: Seen | None) -> list[ClauseResult]:
    if seen is None:
        return []
    return [
        ClauseResult(
            clause=f"velocity.{seen.view}",
            target=f"{seen.burst} events count {PAUSE_S:g} s later",
            measured=seen.readable_ms,
            unit="ms until readable",
            verdict="pass" if seen.exact and seen.pause_s <= PAUSE_S + _LATE_S else "miss",
            n=seen.burst,
            note=", ".join(
                [f"{name} {before:g} → {after:g}" for name, (before, after) in seen.counts.items()]
                + [f"decided {seen.pause_s:.1f} s later"] * (seen.pause_s > PAUSE_S + _LATE_S)
            ),
        )
    ]


def upper_bound(failures: int, n: int) -> float:
    """Return the exact one-sided 95 % upper bound of a failure rate (Clopper and Pearson, 1934); 1.0 for n = 0."""
    from scipy.stats import beta

    if n == 0 or failures >= n:
        return 1.0
    return float(beta.ppf(0.95, failures + 1, n - failures))


def _quantile(seen: Observed, q: float) -> float | None:
    return float(np.quantile(seen.latencies_ms, q)) if seen.latencies_ms else None


def _at_most(clause: str, target: float, measured: float | None, unit: str, n: int) -> ClauseResult:
    verdict: Verdict = "not shown" if measured is None else "pass" if measured <= target else "miss"
    return ClauseResult(clause=clause, target=f"≤ {target:g}", measured=measured, unit=unit, verdict=verdict, n=n)


def _throughput(contract: Contract, seen: Observed) -> ClauseResult:
    ceiling = contract.throughput.ceiling_rps
    enough = seen.rate_rps >= ceiling
    return ClauseResult(
        clause="throughput.ceiling_rps",
        target=f"≥ {ceiling:g}",
        measured=seen.rate_rps,
        unit="requests/s",
        verdict="pass" if enough and not seen.failures else "not shown",
        n=len(seen.latencies_ms),
        note="" if enough else "offered below the ceiling; `python -m benchmarks serving` measures it",
    )


def _availability(contract: Contract, seen: Observed) -> ClauseResult:
    n = len(seen.latencies_ms)
    allowed = 1.0 - contract.availability.target
    bound = upper_bound(seen.failures, n)
    failed = bool(n) and seen.failures / n > allowed
    return ClauseResult(
        clause="availability.target",
        target=f"≥ {contract.availability.target:g}",
        measured=1.0 - seen.failures / n if n else None,
        unit="fraction",
        verdict="miss" if failed else "pass" if bound <= allowed else "not shown",
        n=n,
        note=f"{seen.failures}/{n} failed, upper 95 % bound {bound:.2e}",
    )


def _accuracy(contract: Contract, seen: Observed) -> list[ClauseResult]:
    positives = sum(seen.labels)
    results = []
    for clause in contract.accuracy:
        value = seen.metrics.get(clause.metric)
        verdict: Verdict = "not shown" if value is None else "pass" if value >= clause.floor else "miss"
        results.append(
            ClauseResult(
                clause=f"accuracy.{clause.metric}",
                target=f"≥ {clause.floor:g}",
                measured=value,
                unit="",
                verdict=verdict,
                n=len(seen.labels),
                note=f"{positives} positive labels among matured decisions",
            )
        )
    return results


def _freshness(contract: Contract, seen: Observed) -> list[ClauseResult]:
    n = len(seen.latencies_ms)
    return [
        ClauseResult(
            clause=f"freshness.{clause.view}",
            target="0 stale",
            measured=float(seen.stale),
            unit="decisions",
            verdict="not shown" if not n else "miss" if seen.stale else "pass",
            n=n,
        )
        for clause in contract.freshness
    ]
