"""Which snapshots of a lake table stay: the newest, the pinned, and one per hour and day for time travel."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from headway.core.times import DAY, HOUR


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How much history a table keeps."""

    newest: int = 20
    """Snapshots that stay whatever their age."""
    hourly: int = DAY
    """Microseconds back for which the last snapshot of each hour stays."""
    daily: int = 30 * DAY
    """Microseconds back for which the last snapshot of each day stays."""
    grace: int = HOUR
    """Microseconds that files stay after the last snapshot with them, for reads that have begun."""


def expirable(snapshots: Iterable[tuple[int, int]], keep: Collection[int], now: int, retention: Retention) -> list[int]:
    """Return the ids of snapshots, given as (id, UTC microseconds), that need not stay, oldest first.

    Those in `keep` stay, and the newest one does in any case.
    """
    ordered = sorted(snapshots, key=lambda item: item[1])
    stay = set(keep) | {number for number, _ in ordered[-max(1, retention.newest) :]}
    for span, period in ((retention.hourly, HOUR), (retention.daily, DAY)):
        stay |= set({at // period: number for number, at in ordered if at > now - span}.values())
    return [number for number, _ in ordered if number not in stay]
