"""The shape of a report (INTERFACES §8): what was promised, what was measured, and what could not be shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class ClauseResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One clause of a contract against what was measured."""

    clause: str
    """Field path in the contract."""
    target: Any
    measured: Any
    unit: str
    verdict: Literal["pass", "miss", "not shown"]
    """`not shown`: n is too small to say."""
    n: Count
    """Observations behind `measured`."""
    note: str = ""
    """What a reader should know about the figure."""


class StageSeconds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long one stage took."""

    name: str
    seconds: Seconds


class LatencyQuantiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds from request sent to response received; null where nothing was sent."""

    p50: float | None
    p95: float | None
    p99: float | None


class UseCaseReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One use case."""

    clauses: tuple[ClauseResult, ...]
    stages: tuple[StageSeconds, ...]
    latency_ms: LatencyQuantiles
    requests: Count
    errors: Count
    replayed_reads: Count
    """Online reads recomputed offline."""
    mismatches: Count
    """Those that differed in any bit."""
    model: dict[str, Any]
    """Version, statement hash, metrics."""
    latency_histogram: tuple[Count, ...] = ()
    """Requests per millisecond; the last bin is open."""
    velocity: dict[str, Any] | None = None
    """What a decision a second after a burst of events saw of it, and how soon it could be read."""
    drift: dict[str, Any] | None = None
    """What the drift story showed: alarm, retraining, new champion, failed requests."""


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run of the demo leaves behind."""

    use_cases: dict[str, UseCaseReport]
    environment: dict[str, Any]
    versions: dict[str, str]
    """Software → version."""
