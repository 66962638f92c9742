"""Window aggregates of many (key, decision time) rows at once, exact to the bit wherever the events come from.

A window is (t − offset − w, t − offset] over event_time; an event counts once it is known (known_time ≤ t), and of a
key's known events only the newest `max_events` count. Sums are differences of 64-bit integer prefix sums. Events that
became known out of order can only lie between two bounds that the index gives; those few are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headway.core.times import DAY
from headway.core.types import Int64
from headway.features.definitions import Aggregate, Statistic, WindowView
from headway.features.events import NEVER, NULL, Events, build_events, event_ids, scaled

__all__ = [
    "Events",
    "Status",
    "ViewPlan",
    "WindowColumns",
    "build_events",
    "event_ids",
    "plan_of",
    "scaled",
    "window_columns",
]

Float32 = npt.NDArray[np.float32]
_PAIRS = 2_000_000
_HIGHEST = np.iinfo(np.int64).max


class Status(IntEnum):
    """What a row's view columns rest on."""

    PRESENT = 0
    MISSING = 1
    """No event of this key was known."""
    EXPIRED = 2
    """Events were known, all older than every window."""
    STALE = 3
    """The view as a whole is behind the contract's freshness bound (set by the reader's caller)."""
    DEFAULT = 4
    """Replaced by the contract's default (set by the reader's caller)."""
    TRUNCATED = 5
    """A window reaches back into events that were forgotten."""


@dataclass(frozen=True, kw_only=True)
class WindowColumns:
    """One float32 column per feature, and one status per row."""

    columns: dict[str, Float32]
    status: npt.NDArray[np.uint8]


class _Group(NamedTuple):
    """Aggregates that differ in their windows only: evaluated together."""

    statistic: Statistic
    column: tuple[str, int]
    windows: list[int]
    """Indices into the plan's windows, one per name."""
    names: list[str]


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """A view compiled once: its distinct windows, their bounds, and which aggregates use them."""

    view: WindowView
    names: tuple[str, ...]
    """Feature names in the view's order."""
    bounds: Int64
    """int64[b, 1]: distinct distances of window ends from t, microseconds."""
    low: list[int]
    """Per window, the bound where it begins."""
    high: list[int]
    """Per window, the bound where it ends."""
    endless: npt.NDArray[np.bool_]
    """bool[w]: windows that begin with the first event."""
    ever: bool
    """Whether any window is endless."""
    lowest: int
    """The longest way back that a window with a bound reaches."""
    groups: tuple[_Group, ...]


def plan_of(view: WindowView) -> ViewPlan:
    """Return the compiled view."""
    spans = [(_reach(view, a), a.offset) for a in view.aggregates]
    windows = list(dict.fromkeys(spans))
    bounds = sorted({distance for span in windows for distance in span if distance is not None})
    groups: dict[tuple[Statistic, tuple[str, int]], _Group] = {}
    for name, a, span in zip(view.features, view.aggregates, spans, strict=True):
        column = (a.column or "", a.scale)
        group = groups.setdefault((a.statistic, column), _Group(a.statistic, column, [], []))
        group.windows.append(windows.index(span))
        group.names.append(name)
    return ViewPlan(
        view=view,
        names=view.features,
        bounds=np.array(bounds, np.int64)[:, None],
        low=[0 if reach is None else bounds.index(reach) for reach, _ in windows],
        high=[bounds.index(offset) for _, offset in windows],
        endless=np.array([reach is None for reach, _ in windows], np.bool_),
        ever=any(reach is None for reach, _ in windows),
        lowest=max((reach for reach, _ in windows if reach is not None), default=0),
        groups=tuple(groups.values()),
    )


def _reach(view: WindowView, aggregate: Aggregate) -> int | None:
    """Return how far before t the window of an aggregate begins; None: without bound."""
    reach = None if aggregate.window is None else aggregate.window + aggregate.offset
    if view.retention is None:
        return reach
    return view.retention if reach is None else min(reach, view.retention)


def window_columns(
    view: WindowView | ViewPlan, events: Events, row_key: Int64, at: Int64, *, cutoff: bool = True
) -> WindowColumns:
    """Evaluate a view's aggregates for n rows.

    Args:
        view: The definition, or its plan where the same view is evaluated often.
        events: Events of m keys.
        row_key: int64[n], position in `events.keys`, −1 where the key is null or unknown.
        at: int64[n], decision times, UTC microseconds.
        cutoff: Whether an event counts only once it is known; without it, from its event time on.

    Returns:
        float32[n] per feature: counts and sums of an empty window are 0, everything else NaN.
    """
    plan = view if isinstance(view, ViewPlan) else plan_of(view)
    if len(events.event_time) == 0 or len(at) == 0:
        return _nothing(plan, events, row_key, at)
    rows = _Rows(plan, events, row_key, at, cutoff)
    columns: dict[str, Float32] = {}
    for group in plan.groups:
        columns.update(zip(group.names, rows.aggregate(group), strict=True))
    return WindowColumns(columns={name: columns[name] for name in plan.names}, status=rows.status())


def _nothing(plan: ViewPlan, events: Events, row_key: Int64, at: Int64) -> WindowColumns:
    columns = {}
    for name, aggregate in zip(plan.names, plan.view.aggregates, strict=True):
        zero = aggregate.statistic in (Statistic.COUNT, Statistic.SUM)
        columns[name] = np.full(len(at), 0.0 if zero else np.nan, np.float32)
    status = np.full(len(at), Status.MISSING, np.uint8)
    owned = np.flatnonzero(row_key >= 0)
    forgotten = events.truncated_before[row_key[owned]]
    status[owned[forgotten != NEVER]] = Status.EXPIRED
    status[owned[(forgotten != NEVER) & (plan.ever | (forgotten > at[owned] - plan.lowest))]] = Status.TRUNCATED
    return WindowColumns(columns=columns, status=status)


class _Rows:
    """The n rows of one call with the index ranges of the view's w windows, as arrays [w, n]."""

    def __init__(self, plan: ViewPlan, events: Events, row_key: Int64, at: Int64, cutoff: bool) -> None:
        self._plan, self._events, self._at = plan, events, at
        index = self._index = events.index
        unknown = row_key < 0
        self._unknown = unknown if bool(unknown.any()) else None
        segment = self._segment = row_key if self._unknown is None else np.where(unknown, 0, row_key)
        base = segment * index.span
        start = self._start = events.offsets[segment]
        now = index.number(at) + base
        found = np.searchsorted(index.event, index.number(at - plan.bounds) + base, side="right")
        sure = np.searchsorted(index.known_all if cutoff else index.event, now, side="right")
        maybe = None
        if cutoff and not index.monotone:
            maybe = np.searchsorted(index.known_any, now, side="right")
        if self._unknown is not None:
            found[:, unknown] = sure[unknown] = start[unknown]
            if maybe is not None:
                maybe[unknown] = start[unknown]
        self._low = found[plan.low]
        """Where each window begins, cap aside."""
        if plan.ever:
            self._low[plan.endless] = start
        self._high = found[plan.high]
        """Where each window ends, known or not."""
        self._sure = sure
        """Every event of the row's key before this position is known."""
        self._pairs = [] if maybe is None else list(_pairs(events, at, sure, maybe))
        self._known = sure - start
        for pairs in self._pairs:
            self._known[pairs.rows] += pairs.count(pairs.known)
        self._floor: Int64 | None = None
        """Events before this position are beyond the cap; None: the cap bites nowhere."""
        self._lo = self._low
        if int(self._known.max()) > plan.view.max_events:
            self._dropped = np.maximum(self._known - plan.view.max_events, 0)
            self._floor = np.minimum(start + self._dropped, sure)
            self._lo = np.maximum(self._low, self._floor)
            for pairs in self._pairs:
                pairs.drop_oldest(self._dropped - (sure - start))
        self._hi = np.maximum(np.minimum(self._high, sure), self._lo)
        self._count = self._hi - self._lo
        for pairs in self._pairs:
            for window in range(len(self._count)):
                self._count[window, pairs.rows] += pairs.count(self._inside(pairs, window))

    def aggregate(self, group: _Group) -> Float32:
        """Return the features of a group, float32[len(group.windows), n]."""
        statistic, windows = group.statistic, group.windows
        if statistic is Statistic.COUNT:
            return self._count[windows].astype(np.float32)
        if statistic in (Statistic.SINCE_FIRST, Statistic.SINCE_LAST):
            position = self._position(windows, first=statistic is Statistic.SINCE_FIRST)
            elapsed = (self._at - self._events.event_time[np.maximum(position, 0)]) / float(DAY)
            return np.where(position >= 0, elapsed, np.nan).astype(np.float32)
        if statistic is Statistic.LAST:
            newest = self._position(windows, first=False)
            value = self._events.values[group.column][np.maximum(newest, 0)]
            return _unscaled(value, (newest >= 0) & (value != NULL), group.column[1])
        if statistic in (Statistic.MIN, Statistic.MAX):
            return self._extreme(group.column, windows, largest=statistic is Statistic.MAX)
        return self._sum(group.column, windows, mean=statistic is Statistic.MEAN)

    def status(self) -> npt.NDArray[np.uint8]:
        """Return one status per row."""
        status = np.full(len(self._at), Status.MISSING, np.uint8)
        status[self._known > 0] = Status.EXPIRED
        status[self._count.any(axis=0)] = Status.PRESENT
        forgotten = self._events.truncated_before[self._segment]
        incomplete = forgotten != NEVER
        if incomplete.any():
            if self._unknown is not None:
                incomplete &= ~self._unknown
            status[incomplete & (status == Status.MISSING)] = Status.EXPIRED
            reached = incomplete if self._plan.ever else incomplete & (forgotten > self._at - self._plan.lowest)
            status[reached] = Status.TRUNCATED
        if self._floor is not None:
            beyond = (self._low < self._floor).any(axis=0) & (self._dropped > 0)
            status[beyond | (self._dropped > self._sure - self._start)] = Status.TRUNCATED
        return status

    def _inside(self, pairs: _Pairs, window: int) -> npt.NDArray[np.bool_]:
        return pairs.inside(self._low[window], self._high[window])

    def _sum(self, column: tuple[str, int], windows: list[int], *, mean: bool) -> Float32:
        sums, present = self._index.prefix(column)
        lo, hi = self._lo[windows], self._hi[windows]
        value = sums[hi] - sums[lo]
        count = self._count[windows] if present is None else present[hi] - present[lo]
        for pairs in self._pairs:
            kept = self._events.values[column][pairs.position]
            for row, window in enumerate(windows):
                there = self._inside(pairs, window) & (kept != NULL)
                value[row, pairs.rows] += pairs.total(np.where(there, kept, 0))
                if present is not None:
                    count[row, pairs.rows] += pairs.count(there)
        if not mean:
            return (value / float(column[1])).astype(np.float32)
        average = value / np.maximum(count, 1) / float(column[1])
        average[count == 0] = np.nan
        return average.astype(np.float32)

    def _extreme(self, column: tuple[str, int], windows: list[int], *, largest: bool) -> Float32:
        nothing = NULL if largest else _HIGHEST
        pick = np.maximum if largest else np.minimum
        lo, hi = self._lo[windows], self._hi[windows]
        value = np.full(lo.shape, nothing, np.int64)
        some = hi > lo
        if some.any():
            value[some] = self._index.extreme(column, lo[some], hi[some], largest=largest)
        for pairs in self._pairs:
            kept = self._events.values[column][pairs.position]
            for row, window in enumerate(windows):
                there = self._inside(pairs, window) & (kept != NULL)
                best = pairs.best(np.where(there, kept, nothing), largest=largest)
                value[row, pairs.rows] = pick(value[row, pairs.rows], best)
        return _unscaled(value, value != nothing, column[1])

    def _position(self, windows: list[int], *, first: bool) -> Int64:
        """Return the position of the first or last event of each window, −1 where it is empty."""
        lo, hi = self._lo[windows], self._hi[windows]
        found = np.where(hi > lo, lo if first else hi - 1, -1)
        for pairs in self._pairs:
            for row, window in enumerate(windows):
                inside = self._inside(pairs, window)
                before = found[row, pairs.rows]
                if first:
                    best = pairs.best(np.where(inside, pairs.position, _HIGHEST), largest=False)
                    found[row, pairs.rows] = np.where(before >= 0, before, np.where(best == _HIGHEST, -1, best))
                else:
                    best = pairs.best(np.where(inside, pairs.position, -1), largest=True)
                    found[row, pairs.rows] = np.where(best >= 0, best, before)
        return found


def _unscaled(value: Int64, there: npt.NDArray[np.bool_], scale: int) -> Float32:
    return np.where(there, value / float(scale), np.nan).astype(np.float32)


class _Pairs:
    """(row, event) pairs of the events that may or may not be known, a run of at least one per row."""

    def __init__(self, events: Events, at: Int64, rows: Int64, begin: Int64, lengths: Int64) -> None:
        self.rows = rows
        self._lengths = lengths
        self._runs = np.cumsum(lengths) - lengths
        self.position = np.repeat(begin - self._runs, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)
        self.known = events.known_time[self.position] <= np.repeat(at[rows], lengths)

    def drop_oldest(self, beyond: Int64) -> None:
        """Forget the first `beyond[row]` known events of each run: they are beyond the cap."""
        drop = np.repeat(beyond[self.rows], self._lengths)
        if bool((drop > 0).any()):
            running = np.cumsum(self.known)
            before = np.repeat(running[self._runs] - self.known[self._runs], self._lengths)
            self.known &= running - before > drop

    def inside(self, low: Int64, high: Int64) -> npt.NDArray[np.bool_]:
        """Return which pairs are known and inside [low, high) of their row."""
        return (
            self.known
            & (self.position >= np.repeat(low[self.rows], self._lengths))
            & (self.position < np.repeat(high[self.rows], self._lengths))
        )

    def count(self, chosen: npt.NDArray[np.bool_]) -> Int64:
        """Return the number of chosen pairs per row."""
        return self.total(chosen.astype(np.int64))

    def total(self, values: Int64) -> Int64:
        """Return the sum per row."""
        return np.add.reduceat(values, self._runs)

    def best(self, values: Int64, *, largest: bool) -> Int64:
        """Return the extreme per row."""
        return (np.maximum if largest else np.minimum).reduceat(values, self._runs)


def _pairs(events: Events, at: Int64, sure: Int64, maybe: Int64) -> Iterator[_Pairs]:
    """Yield the pairs of the rows that have any, in pieces of bounded size."""
    rows = np.flatnonzero(maybe > sure)
    if len(rows) == 0:
        return
    lengths = (maybe - sure)[rows]
    piece = np.cumsum(lengths) // _PAIRS
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(piece)) + 1):
        yield _Pairs(events, at, rows[part], sure[rows[part]], lengths[part])
