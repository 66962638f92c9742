"""What the contract promises of every request, in the units that telemetry counts in, and how fast a budget is burnt.

A burn rate of 1 uses a clause's budget exactly up over its window; the pairs 5 min/1 h and 30 min/6 h are those of
multi-window alerts (Site Reliability Workbook, chapter 5). Freshness has no budget: the share of
stale rows is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from headway.governance.contract_schema import Contract

P95, P99, AVAILABILITY = "latency.p95_ms", "latency.p99_ms", "availability"
WINDOWS: Mapping[str, int] = {"5m": 300, "30m": 1_800, "1h": 3_600, "6h": 21_600}
"""Name → seconds."""
_SLOT_S = 10
_SLOTS = max(WINDOWS.values()) // _SLOT_S
_OF_P95 = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
_OF_P99 = (1.0, 1.5, 2.0, 4.0, 10.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """The clauses that every request is held against."""

    p95_s: float
    p99_s: float
    availability: float
    """Share of requests that must be answered."""
    max_lag: Mapping[str, int] = field(default_factory=dict)
    """View → microseconds."""

    @classmethod
    def of(cls, contract: Contract) -> Objectives:
        """Return the objectives of a parsed contract."""
        return cls(
            p95_s=contract.latency.p95_ms / 1e3,
            p99_s=contract.latency.p99_ms / 1e3,
            availability=contract.availability.target,
            max_lag={clause.view: clause.max_lag.microseconds for clause in contract.freshness},
        )

    @property
    def buckets(self) -> tuple[float, ...]:
        """Upper bounds of latency buckets, in seconds; both clauses are among them, so their shares are exact."""
        middle = (self.p95_s + self.p99_s) / 2
        edges = {*(self.p95_s * part for part in _OF_P95), middle, *(self.p99_s * part for part in _OF_P99)}
        return tuple(sorted(edges))

    @property
    def allowed(self) -> dict[str, float]:
        """Clause → share of events that may break it; 1 where there is no budget and the share itself is shown."""
        fresh = {freshness(view): 1.0 for view in self.max_lag}
        return {P95: 0.05, P99: 0.01, AVAILABILITY: 1.0 - self.availability, **fresh}


def freshness(view: str) -> str:
    """Return the name of a freshness clause."""
    return f"freshness.{view}"


class Budgets:
    """Good and bad events of each clause over the last six hours, in slots of ten seconds."""

    def __init__(self, objectives: Objectives) -> None:
        self._allowed = objectives.allowed
        self._place = {clause: place for place, clause in enumerate(self._allowed)}
        self._counts = np.zeros((_SLOTS, len(self._place), 2), np.int64)
        self._slot = 0

    def add(self, clause: str, bad: int, total: int, now_s: float) -> None:
        """Count events at a monotonic time."""
        self._move(now_s)
        self._counts[self._slot % _SLOTS, self._place[clause]] += (bad, total)

    def burn(self, now_s: float) -> dict[tuple[str, str], float]:
        """Return (clause, window) → burn rate; 0 where nothing happened."""
        self._move(now_s)
        rates = {}
        for window, seconds in WINDOWS.items():
            slots = (self._slot - np.arange(seconds // _SLOT_S)) % _SLOTS
            sums = self._counts[slots].sum(axis=0)
            for clause, place in self._place.items():
                bad, total = sums[place].tolist()
                rates[clause, window] = bad / total / self._allowed[clause] if total else 0.0
        return rates

    def _move(self, now_s: float) -> None:
        """Forget what is older than the longest window."""
        slot = int(now_s) // _SLOT_S
        for passed in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            self._counts[passed % _SLOTS] = 0
        self._slot = max(self._slot, slot)
