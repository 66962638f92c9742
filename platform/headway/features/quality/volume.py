"""How many rows a day usually brings, told from the days before it: robust, and by weekday once there are enough.

The centre is the median of the same weekday, the spread the median absolute deviation of all days from theirs (times
1.4826: a standard deviation where days vary like a bell), so a broken day in the past moves neither much. It is never
taken to be less than chance alone makes it (the square root of the centre) or than a twentieth of the centre.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import pyarrow as pa

from headway.core.times import DAY, KNOWN_TIME, format_time
from headway.features.arrow import whole
from headway.features.quality.expectations import Expectation

TRAILING = 63
"""Days that are looked at: nine of each weekday."""
_OF_A_WEEKDAY = 3
_LEAST = 0.05
_NORMAL = 1.4826


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What a day brings as a rule."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Volumes:
    """What is known of a source's days while a batch is judged."""

    rows: Mapping[int, int]
    """Day (since 1970, of known_time) → rows recorded."""
    counted: frozenset[int]
    """Days whose rows have the batch's already."""
    now: int
    """UTC microseconds: days that ended before are over."""
    yesterday: bool = False
    """Whether the day before the batch's is judged too: for streams, which bring every day."""


def usual(rows: Mapping[int, int], day: int, *, deviations: float, days: int) -> Usual | None:
    """Return what a day brings as a rule; None where fewer than `days` days before it are known.

    A day without rows among them counts as one with none; the first day of all is left out, for it may be part of one.
    """
    if not rows:
        return None
    first = max(min(rows) + 1, day - TRAILING)
    known = {each: rows.get(each, 0) for each in range(first, day)}
    if len(known) < days:
        return None
    overall = median(known.values())
    alike: dict[int, list[int]] = {}
    for each, count in known.items():
        alike.setdefault(each % 7, []).append(count)
    centres = {place: median(counts) for place, counts in alike.items() if len(counts) >= _OF_A_WEEKDAY}
    centre = centres.get(day % 7)
    if centre is None:
        centre, centres = overall, {}
    apart = [abs(count / own - 1) for each, count in known.items() if (own := centres.get(each % 7, overall))]
    spread = max(_NORMAL * median(apart or [0.0]) * centre, math.sqrt(centre), _LEAST * centre, 1.0)
    return Usual(low=centre - deviations * spread, high=centre + deviations * spread)


def unusual(promise: Expectation, events: pa.Table, volumes: Volumes) -> str:
    """Return what is unusual about the days of a batch, in words; empty: nothing, or too little is known.

    Too many rows are seen at once, too few when the day is over.
    """
    days, counts = np.unique(np.asarray(whole(events[KNOWN_TIME]).to_numpy(), np.int64) // DAY, return_counts=True)
    brought = dict(zip(days.tolist(), counts.tolist(), strict=True))
    if volumes.yesterday and brought:
        brought.setdefault(max(brought) - 1, 0)
    for day, count in sorted(brought.items()):
        rows = volumes.rows.get(day, 0) + (0 if day in volumes.counted else count)
        rule = usual(volumes.rows, day, deviations=promise.high or 0.0, days=promise.days)
        if rule is None:
            continue
        over = (day + 1) * DAY <= volumes.now
        if rows > rule.high or (over and rows < rule.low):
            low, high = max(0, math.ceil(rule.low)), math.floor(rule.high)
            date = format_time(day * DAY)[:10]
            return f"{date} has {rows:,} rows, {low:,} to {high:,} are usual"
    return ""
