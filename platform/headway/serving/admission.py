"""Who gets in: a rate limit per client (429) and a bound on waiting (503), both decided before any work is queued."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from headway.core.clock import Clock
from headway.core.errors import QuotaExceeded, TooLarge, Unavailable

_CLIENTS = 10_000
_PRIORITY_SHARE = 1.5
_OUTCOMES_PER_DECISION = 5.0
"""How many outcomes a client may send where it may ask for one decision: labels come late, many days' at once."""


class Verdict(Enum):
    """What to do with an admitted request."""

    SCORE = "score"
    FALLBACK = "fallback"
    """Answer by the rules: the contract prefers them to a refusal above the ceiling."""


@dataclass(frozen=True, kw_only=True)
class AdmissionLimits:
    """The clauses of a contract that admission enforces."""

    rate: float
    """Rows per second and client (`limits.default_rps`)."""
    burst: float
    """Rows a client may send at once (`limits.burst`)."""
    ceiling: float
    """Rows per second that must be sustained (`throughput.ceiling_rps`); below it nothing is shed for lateness."""
    deadline_s: float
    """Longest time in the service (`latency.p99_ms`)."""
    max_queued_rows: int
    """Rows that may wait in one replica."""
    shed: bool
    """`throughput.beyond`: shed, else fallback."""


class Gcra:
    """Generic cell rate algorithm (ITU-T I.371): one number per client, exact, without timers; cost = rows."""

    def __init__(self, *, rate: float, burst: float, clients: int = _CLIENTS) -> None:
        self.rate = rate
        self.burst = burst
        self._interval = 1.0 / rate
        self._tolerance = burst / rate
        self._clients = clients
        self._arrival: OrderedDict[str, float] = OrderedDict()

    def take(self, client: str, cost: int, now: float) -> float:
        """Return 0 and count the rows, or the seconds until they would fit; a refusal costs nothing."""
        arrival = max(self._arrival.get(client, now), now)
        moved = arrival + cost * self._interval
        excess = moved - now - self._tolerance
        if excess > 1e-9:
            return excess
        self._arrival[client] = moved
        self._arrival.move_to_end(client)
        if len(self._arrival) > self._clients:
            self._arrival.popitem(last=False)
        return 0.0


class RateMeter:
    """Rows per second over the last second: this second's count and the fading part of the one before."""

    def __init__(self) -> None:
        self._second = 0
        self._count = self._before = 0

    def add(self, rows: int, now: float) -> float:
        """Count rows and return the rate."""
        second = int(now)
        if second != self._second:
            self._before = self._count if second == self._second + 1 else 0
            self._second, self._count = second, 0
        self._count += rows
        return self._count + self._before * (1.0 - (now - second))


class Admission:
    """One object for every way in: HTTP and handle calls."""

    def __init__(self, limits: AdmissionLimits, clock: Clock) -> None:
        self.limits = limits
        self._clock = clock
        self._meter = RateMeter()
        self._gcra = Gcra(rate=limits.rate, burst=limits.burst)
        # of their own: who decides at the contract's full rate must be able to say what became of it
        self._outcomes = Gcra(rate=limits.rate * _OUTCOMES_PER_DECISION, burst=limits.burst * _OUTCOMES_PER_DECISION)
        self.shed = 0
        self.refused = 0

    def admit(self, client: str, rows: int, *, queued_rows: int, wait_s: float, priority: bool = False) -> Verdict:
        """Return the verdict; raise QuotaExceeded, TooLarge or Unavailable."""
        if rows > self.limits.burst:
            raise TooLarge(
                f"{rows} rows, the contract lets a client send {self.limits.burst:.0f} at once",
                field="rows",
                hint="split the request",
            )
        share = _PRIORITY_SHARE if priority else 1.0
        now = self._clock.monotonic()
        above = self._meter.add(rows, now) > self.limits.ceiling
        late = queued_rows + rows > self.limits.max_queued_rows * share
        late = late or (above and wait_s > self.limits.deadline_s * share)
        if late and self.limits.shed:
            self.shed += 1
            raise Unavailable(
                f"overloaded: about {wait_s * 1e3:.0f} ms of work waits, the contract allows "
                f"{self.limits.deadline_s * 1e3:.0f} ms",
                retry_after_s=max(1.0, wait_s),
            )
        self._charge(self._gcra, client, rows, now)
        return Verdict.FALLBACK if late else Verdict.SCORE

    def admit_outcomes(self, client: str, rows: int, *, queued_rows: int) -> None:
        """Let outcomes in, or raise QuotaExceeded, TooLarge or Unavailable; a request without rows counts as one."""
        cost = max(1, rows)
        burst = self._outcomes.burst
        if cost > burst:
            raise TooLarge(f"{rows} outcomes, at most {burst:.0f}", field="outcomes", hint="split the request")
        if queued_rows + cost > self.limits.max_queued_rows:
            self.shed += 1
            raise Unavailable(f"overloaded: {queued_rows} outcomes wait", retry_after_s=1.0)
        self._charge(self._outcomes, client, cost, self._clock.monotonic())

    def _charge(self, gcra: Gcra, client: str, cost: int, now: float) -> None:
        excess = gcra.take(client, cost, now)
        if excess:
            self.refused += 1
            raise QuotaExceeded(
                f"{client} is above {gcra.rate:g} rows per second",
                retry_after_s=excess,
                hint="slow down, or have limits.default_rps raised in the contract",
            )
