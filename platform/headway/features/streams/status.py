"""How a topic's processing is, and which of its budgets are exceeded: pure, so that every caller alarms alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from headway.core.times import HOUR, MINUTE, format_duration
from headway.features.streams.parts import Progress


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One partition."""

    progress: Progress
    end: int
    """The next offset of the stream; −1: not known yet."""
    state: str
    """running | waiting (a fault that may pass) | fenced (another processor has it)."""
    error: str = ""
    """Of the last step; empty when it went well."""
    failing_since: int = 0
    """UTC microseconds; 0: it does not."""

    @property
    def lag(self) -> int:
        """Messages that no step has seen."""
        return max(0, self.end - self.progress.position)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is alarmed beyond."""

    lag: int = 100_000
    """Messages per partition."""
    behind: int = MINUTE
    """Microseconds between the watermark and now."""
    failing: int = MINUTE
    """Microseconds during which no step succeeds."""
    dead_share: float = 0.01
    """Dead letters among all messages."""
    state_bytes: int = 8 << 30
    """Of all keys of a view in the online store."""
    key_age: int = 24 * HOUR
    """Microseconds that a key may stay after no window reaches its events any more."""


class StateSize(msgspec.Struct, frozen=True, kw_only=True):
    """What a view holds in the online store."""

    view: str
    keys: int
    bytes: int
    overdue: int
    """Keys that have outlived their events' reach by more than the budget and have no expiry."""


def alarms(statuses: Sequence[PartitionStatus], sizes: Sequence[StateSize], budget: Budget, now: int) -> list[str]:
    """Return one line per exceeded budget; empty when all is well."""
    found = []
    for status in statuses:
        at, name = status.progress, f"partition {status.progress.partition}"
        if status.lag > budget.lag:
            found.append(f"{name}: {status.lag:,} messages wait (budget {budget.lag:,})")
        if at.watermark and now - at.watermark > budget.behind:
            found.append(f"{name}: complete up to {format_duration((now - at.watermark) // 1_000 * 1_000)} ago")
        if status.failing_since and now - status.failing_since > budget.failing:
            found.append(f"{name}: no step succeeds: {status.error}")
        if at.dead > budget.dead_share * (at.rows + at.dead):
            found.append(f"{name}: {at.dead:,} dead letters beside {at.rows:,} rows (streams.dead_letters)")
        if at.lost:
            found.append(f"{name}: {at.lost:,} messages were dropped by the stream unread")
        if at.unknown:
            found.append(f"{name}: unknown fields: {', '.join(at.unknown)}")
        found += [f"{name}: {line}" for line in at.broken]
    for size in sizes:
        if size.bytes > budget.state_bytes:
            found.append(f"{size.view}: {size.bytes:,} bytes online (budget {budget.state_bytes:,})")
        if size.overdue:
            found.append(f"{size.view}: {size.overdue:,} keys have outlived every window and have no expiry")
    return found
