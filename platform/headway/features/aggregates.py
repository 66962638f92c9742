"""What a window view computes: a statistic of a column over a window, written as `mean("amount", "1d", "7d")`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from headway.core.times import format_duration, parse_duration

HASHED = 0
"""In place of a scale: the values are identities, not numbers."""


class Statistic(StrEnum):
    """What an aggregate computes over the events of a window."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    LAST = "last"
    STD = "std"
    """Population standard deviation: the root of the mean squared deviation from the exact mean."""
    DISTINCT = "distinct"
    """Number of different values; text is compared by 64-bit hashes, so a miscount has a chance of 2⁻⁶⁴ per pair."""
    SINCE_FIRST = "since_first"
    """Days from the first event in the window to the decision."""
    SINCE_LAST = "since_last"
    """Days from the last event in the window to the decision."""


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One statistic of one column over (t − offset − window, t − offset]; see `count`, `total`, `mean`, `last`."""

    statistic: Statistic
    column: str | None = None
    window: int | None = None
    """Microseconds; None: everything that the view retains."""
    offset: int = 0
    """Microseconds by which the window ends before t, for facts that are late by design."""
    scale: int = 1
    """Values count as int64(round(value × scale)), so that every path agrees to the bit; `HASHED`: as identities."""

    @property
    def name(self) -> str:
        """`amount_mean_7d`, `count_30d`, `since_last`."""
        parts = [self.column or "", self.statistic.value, "" if self.window is None else format_duration(self.window)]
        return "_".join(part for part in parts if part)

    def describe(self) -> dict[str, Any]:
        """Return the definition as builtin types."""
        return {
            "name": self.name,
            "statistic": self.statistic.value,
            "column": self.column,
            "window": self.window,
            "offset": self.offset,
            "scale": self.scale,
        }


def _windows(
    statistic: Statistic, column: str | None, windows: tuple[str, ...], offset: str, scale: int
) -> tuple[Aggregate, ...]:
    delay = parse_duration(offset, field="offset")
    spans = tuple(parse_duration(text, field="window") for text in windows) or (None,)
    return tuple(
        Aggregate(statistic=statistic, column=column, window=span, offset=delay, scale=scale) for span in spans
    )


def count(*windows: str, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Count events, one aggregate per window; no window: all retained."""
    return _windows(Statistic.COUNT, None, windows, offset, 1)


def total(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Sum a column exactly, in units of 1/scale."""
    return _windows(Statistic.SUM, column, windows, offset, scale)


def mean(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Average a column: exact sum / count; NaN over an empty window."""
    return _windows(Statistic.MEAN, column, windows, offset, scale)


def smallest(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Minimum of a column; NaN over an empty window."""
    return _windows(Statistic.MIN, column, windows, offset, scale)


def largest(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Maximum of a column; NaN over an empty window."""
    return _windows(Statistic.MAX, column, windows, offset, scale)


def last(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Newest value (ties: greatest known_time, then id order of arrival); NaN over an empty window."""
    return _windows(Statistic.LAST, column, windows, offset, scale)


def std(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Population standard deviation of a column; 0 of one value, NaN over an empty window."""
    return _windows(Statistic.STD, column, windows, offset, scale)


def distinct(column: str, *windows: str, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Count the different values of a column, numbers or text; missing ones do not count."""
    return _windows(Statistic.DISTINCT, column, windows, offset, HASHED)


def since_first(*windows: str) -> tuple[Aggregate, ...]:
    """Days since the first event; NaN over an empty window."""
    return _windows(Statistic.SINCE_FIRST, None, windows, "0s", 1)


def since_last(*windows: str) -> tuple[Aggregate, ...]:
    """Days since the last event; NaN over an empty window."""
    return _windows(Statistic.SINCE_LAST, None, windows, "0s", 1)
