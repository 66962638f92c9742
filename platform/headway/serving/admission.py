"""Who gets in: a rate limit per client (429) and a bound on waiting (503), both decided before any work is queued.

A call that cannot be answered before its deadline is refused at once, whatever the load: the work would be wasted.
Above the contract's ceiling so is one whose estimated wait is beyond p95: planning for p95 leaves p99 room for what an
estimate cannot know. Where the contract says fallback, the rules answer such calls instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from headway.core.clock import Clock
from headway.core.errors import QuotaExceeded, TooLarge, Unavailable
from headway.serving.limiter import Gcra
from headway.serving.priority import Priority

_ROOM = (1.0, 1.0, 0.5)
"""How much of the bound on waiting rows a class may fill together with the classes above it: high, normal, low."""
_SURE = 0.8
"""Part of the time left that an estimated wait may fill: above it too many would be given up after all."""
_BATCHES = 3.0
"""Fixed costs of batches that a call meets: of the one that runs, of its own, and as much again for its rows."""
_LATEST_RETURN_S = 30.0
_BYTES_PER_ROW = 4_096
"""A body counts as at least one row per so many bytes: whatever it holds, it is read whole."""
_OUTCOMES_PER_DECISION = 5.0
"""How many outcomes a client may send where it may ask for one decision: labels come late, many days' at once."""


class Verdict(Enum):
    """What to do with an admitted request."""

    SCORE = "score"
    FALLBACK = "fallback"
    """Answer by the rules, at once: the contract prefers them to a refusal."""


@dataclass(frozen=True, kw_only=True)
class AdmissionLimits:
    """The clauses of a contract that admission enforces."""

    rate: float
    """Rows per second and client (`limits.default_rps`)."""
    burst: float
    """Rows a client may send at once (`limits.burst`)."""
    ceiling: float
    """Rows per second of all replicas that must be sustained (`throughput.ceiling_rps`)."""
    deadline_s: float
    """Longest time in the service (`latency.p99_ms`)."""
    target_s: float
    """Longest estimated wait above the ceiling (`latency.p95_ms`)."""
    max_queued_rows: int
    """Rows that may wait in one replica."""
    shed: bool
    """`throughput.beyond`: shed, else fallback."""


class Backlog(Protocol):
    """What waits in this replica (`headway.serving.batching.Batcher`)."""

    @property
    def class_rows(self) -> Sequence[int]:
        """Rows that wait, by class."""
        ...

    def wait_s(self, rows: int = 0, priority: int = Priority.NORMAL) -> float:
        """Estimate the seconds until a call's answer."""
        ...

    def batch_s(self) -> float:
        """Estimate the seconds of a batch before its rows."""
        ...

    def row_s(self) -> float:
        """Estimate the seconds of a row in a full batch."""
        ...


class Ceiling:
    """Whether more comes than a rate: a bucket that leaks at the rate, and what one client may send at once fits in."""

    def __init__(self, rate: float, depth: float) -> None:
        self._rate = rate
        self._depth = depth
        self._level = self._at = 0.0

    def above(self, rows: int, now: float, share: int = 1) -> bool:
        """Count rows that come now, and say whether they are above a replica's share of the rate.

        A second after a flood it is forgotten.
        """
        rate = self._rate / share
        level = self._level - (now - self._at) * rate
        self._at = now
        level = (level if level > 0.0 else 0.0) + rows
        self._level = min(level, self._depth + rate)
        return level > self._depth


class Admission:
    """One object for every way in: HTTP, gRPC and handle calls."""

    def __init__(self, limits: AdmissionLimits, clock: Clock) -> None:
        self.limits = limits
        self.replicas = 1
        """Replicas that share the ceiling; told by `headway.serving.shared_limits`."""
        self._clock = clock
        self._ceiling = Ceiling(limits.ceiling, max(limits.burst, limits.ceiling * limits.deadline_s))
        self.decisions = Gcra(rate=limits.rate, burst=limits.burst)
        # of their own: who decides at the contract's full rate must be able to say what became of it
        self.outcomes = Gcra(rate=limits.rate * _OUTCOMES_PER_DECISION, burst=limits.burst * _OUTCOMES_PER_DECISION)
        self.shed = 0
        self.shed_above = 0
        """Decisions shed above the ceiling, which are not held against availability."""
        self.refused = 0
        self._return_at = 0.0
        """Monotonic seconds: when the next refused caller is asked to come back."""

    def admit(
        self,
        client: str,
        rows: int,
        backlog: Backlog,
        *,
        left_s: float,
        priority: int = Priority.NORMAL,
        size: int = 0,
        extra: int = 0,
    ) -> Verdict:
        """Return the verdict on a call of `size` bytes with `left_s` seconds to its deadline.

        `extra` rows count against the client's limit and are not scored: the price of reasons.
        Raises QuotaExceeded, TooLarge or Unavailable; the latter says when the work before it will be done.
        """
        limits = self.limits
        if rows + extra > limits.burst:
            counted = f", counted as {rows + extra} with their reasons" if extra else ""
            raise TooLarge(
                f"{rows} rows{counted}, the contract lets a client send {limits.burst:.0f} at once",
                field="rows",
                hint="split the request",
            )
        now = self._clock.monotonic()
        cost = extra + max(rows, min(size // _BYTES_PER_ROW, int(limits.burst)))
        excess = self.decisions.excess(client, cost, now)
        if excess:  # before the ceiling: what one client may not send is nobody's load
            raise self._above_quota(self.decisions, client, excess)
        above = self._ceiling.above(rows, now, self.replicas)
        wait_s = backlog.wait_s(rows, priority)
        may_wait_s = left_s * _SURE
        if above and wait_s > limits.target_s:
            # where batches alone take so long that p95 is out of reach, p99 decides: else hardly anybody got in
            attainable_s = min(_BATCHES * backlog.batch_s(), limits.deadline_s * _SURE)
            may_wait_s = min(may_wait_s, max(limits.target_s, attainable_s))
        waiting = backlog.class_rows
        beyond = waiting[priority] + rows - limits.max_queued_rows * _ROOM[priority]
        for other in range(priority):
            beyond += waiting[other]
        late = beyond > 0 or wait_s > may_wait_s
        if late and limits.shed:
            self.shed_above += above
            need_s = max(beyond * backlog.row_s(), wait_s - may_wait_s)
            raise self._overloaded(rows, backlog, wait_s, may_wait_s, need_s, now)
        self.decisions.take(client, cost, now)
        return Verdict.FALLBACK if late else Verdict.SCORE

    def require_credit(self, gcra: Gcra, client: str) -> None:
        """Raise QuotaExceeded if the client's next row would be above its rate: then its body is not read."""
        excess = gcra.excess(client, 1, self._clock.monotonic())
        if excess:
            raise self._above_quota(gcra, client, excess)

    def charge_unusable(self, gcra: Gcra, client: str, size: int) -> None:
        """Count a body of `size` bytes that could not be used: to find that out was work all the same."""
        gcra.debit(client, 1 + size // _BYTES_PER_ROW, self._clock.monotonic())

    def require_room(self, rows: int, backlog: Backlog) -> None:
        """Raise Unavailable if not even the rules keep up."""
        beyond = sum(backlog.class_rows) + rows - self.limits.max_queued_rows
        if beyond > 0:
            raise self._overloaded(
                rows, backlog, backlog.wait_s(rows), 0.0, beyond * backlog.row_s(), self._clock.monotonic()
            )

    def admit_outcomes(self, client: str, rows: int, *, queued_rows: int) -> None:
        """Let outcomes in, or raise QuotaExceeded, TooLarge or Unavailable; a request without rows counts as one."""
        cost = max(1, rows)
        burst = self.outcomes.burst
        if cost > burst:
            raise TooLarge(f"{rows} outcomes, at most {burst:.0f}", field="outcomes", hint="split the request")
        if queued_rows + cost > self.limits.max_queued_rows:
            self.shed += 1
            raise Unavailable(f"overloaded: {queued_rows} outcomes wait", retry_after_s=1.0)
        self._charge(self.outcomes, client, cost, self._clock.monotonic())

    def _overloaded(
        self, rows: int, backlog: Backlog, wait_s: float, may_wait_s: float, need_s: float, now: float
    ) -> Unavailable:
        """Return the refusal; each refused call is given its own turn to come back, not all the same moment."""
        self.shed += 1
        turn = min(max(now + need_s, self._return_at), now + _LATEST_RETURN_S)
        self._return_at = turn + rows * backlog.row_s()
        return Unavailable(
            f"overloaded: about {wait_s * 1e3:.0f} ms of work waits, this call may wait {may_wait_s * 1e3:.0f} ms",
            retry_after_s=turn - now,
        )

    def _charge(self, gcra: Gcra, client: str, cost: int, now: float) -> None:
        excess = gcra.take(client, cost, now)
        if excess:
            raise self._above_quota(gcra, client, excess)

    def _above_quota(self, gcra: Gcra, client: str, excess: float) -> QuotaExceeded:
        self.refused += 1
        return QuotaExceeded(
            f"{client} is above {gcra.rate:g} rows per second",
            retry_after_s=excess,
            hint="slow down, or have limits.default_rps raised in the contract",
        )
