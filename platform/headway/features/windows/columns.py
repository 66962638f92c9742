"""Window aggregates of many (key, decision time) rows at once, equal to the bit wherever the events come from.

A window is (t − offset − w, t − offset] over event_time; an event counts once it happened and is known (event_time ≤ t,
known_time ≤ t). In an `exact` view only the newest `max_events` of a key's events known at t count. In a view of hop
tiles an event is as old as the upper edge of its tile, so that a window takes whole tiles. Sums are 64-bit integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headway.core.types import Int64
from headway.features.aggregates import Aggregate, Statistic
from headway.features.definitions import WindowView
from headway.features.windows import scan
from headway.features.windows import tiles as tile
from headway.features.windows.events import Events
from headway.features.windows.scan import VALUES
from headway.features.windows.tiles import TileLayout, Tiles, tile_layout, tiled

Float32 = npt.NDArray[np.float32]
_CODES = {
    Statistic.COUNT: scan.COUNT,
    Statistic.SUM: scan.SUM,
    Statistic.MEAN: scan.MEAN,
    Statistic.MIN: scan.MIN,
    Statistic.MAX: scan.MAX,
    Statistic.LAST: scan.LAST,
    Statistic.STD: scan.STD,
    Statistic.DISTINCT: scan.DISTINCT,
    Statistic.SINCE_FIRST: scan.SINCE_FIRST,
    Statistic.SINCE_LAST: scan.SINCE_LAST,
}


_NONE = np.zeros(0, np.int64)
_NO_TILES = Tiles(
    offsets=_NONE,
    records=np.zeros((0, tile.PARTS), np.int64),
    ranges=np.zeros((0, 2), np.int64),
    loose=_NONE,
    sketches=_NONE,
    sketch_at=_NONE,
)
_NO_PLACE = np.zeros((0, 8), np.int64)


@dataclass(frozen=True, kw_only=True)
class WindowColumns:
    """One float32 column per feature, and one status per row."""

    columns: dict[str, Float32]
    status: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """A view compiled once into the numbers that the scan works by."""

    view: WindowView
    names: tuple[str, ...]
    """Feature names in the view's order."""
    bounds: Int64
    """int64[b]: distinct distances of window ends from t, microseconds, ascending."""
    endless: bool
    """Whether a window goes back to the first event."""
    features: Int64
    """int64[f, 5]: statistic, column of `Events.records` (−1: none), first and last band of the window, place among the
    sketched columns (−1: values are counted one by one)."""
    scales: npt.NDArray[np.float64]
    until: int
    """Column of a record that says until when the event counts; −1: it counts for ever."""
    layout: TileLayout | None
    """Of the view's tiles; None: it is exact."""


def plan_of(view: WindowView) -> ViewPlan:
    """Return the compiled view; the scan is loaded here, so that no request waits for it."""
    scan.compiled()
    spans = [(a.offset, _reach(view, a)) for a in view.aggregates]
    bounds = sorted({distance for span in spans for distance in span if distance is not None})
    place = {column: VALUES + i for i, column in enumerate(view.columns)}
    layout = None if view.exact else tile_layout(view)
    features = [
        (
            _CODES[a.statistic],
            -1 if a.column is None else place[a.column, a.scale],
            bounds.index(offset) + 1,
            len(bounds) if reach is None else bounds.index(reach),
            _sketched(layout, -1 if a.column is None else place[a.column, a.scale], a),
        )
        for a, (offset, reach) in zip(view.aggregates, spans, strict=True)
    ]
    return ViewPlan(
        view=view,
        names=view.features,
        bounds=np.array(bounds, np.int64),
        endless=any(reach is None for _, reach in spans),
        features=np.array(features, np.int64).reshape(-1, 5),
        scales=np.array([a.scale for a in view.aggregates], np.float64),
        until=-1 if view.source.retracts is None else VALUES + len(view.columns),
        layout=layout,
    )


def _sketched(layout: TileLayout | None, column: int, aggregate: Aggregate) -> int:
    """Return the place of a column among the sketched ones, −1 where its values are counted one by one."""
    if layout is None or aggregate.statistic is not Statistic.DISTINCT:
        return -1
    return layout.sketched.index(column)


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
    layout, tiles, cap = plan.layout, events.tiles, plan.view.max_events
    if layout is not None and tiles is None:
        tiles = tiled(layout, events, more_than=tile.FEW)
    tiles = tiles or _NO_TILES
    values = np.empty((len(plan.names), len(at)), np.float32)
    status = np.empty(len(at), np.uint8)
    scan.compiled()(
        events.offsets, events.records, events.truncated_before,
        tiles.offsets, tiles.records, tiles.ranges, tiles.loose, tiles.sketches, tiles.sketch_at,
        row_key, at, cutoff,
        plan.bounds, -1 if cap is None else cap, plan.endless, 1 if layout is None else layout.hop,
        plan.features, _NO_PLACE if layout is None else layout.place, plan.scales, plan.until,
        values, status,
    )  # fmt: skip
    return WindowColumns(columns=dict(zip(plan.names, values, strict=True)), status=status)
