"""Hop tiles: sums of all events of a key within one hop, so that a window of many events costs as many steps as hops.

The tile with the edge E holds the events of (E − hop, E]. A window takes a tile in or leaves it out whole, by its edge:
it reaches up to one hop further back than declared, and that is the only error. All sums are integers, so tiles made in
any order, from any part of the history, give the same features to the bit as the events themselves; of many different
values the `SKETCH` smallest hashes are kept, which are the same in any order too (KMV: Bar-Yossef et al., 2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headway.core.types import Int64
from headway.features.aggregates import Statistic
from headway.features.windows.events import Events
from headway.features.windows.scan import EVENT, FOREVER, KNOWN, NULL, SKETCH, VALUES

if TYPE_CHECKING:
    from headway.features.definitions import WindowView

EDGE, READY, LATEST, COUNT, FIRST, LAST, PARTS = range(7)
"""Columns of a tile: its edge; from when on it counts whole; its newest event, taken back or not; how many events
count, the first and the last of them; then the parts of columns that the view needs."""
N, SUM, MIN, MAX, HIGH, LOW, NEWEST, SKETCHED = range(8)
"""Parts of a column: values, sum, extremes, sum of squares as HIGH × 2⁶² + LOW, newest value, hashes in the sketch."""
FEW = 64
"""Up to so many events of a key are kept one by one: no tile would save anything."""
_HIGHEST = np.iinfo(np.int64).max
_HALF = 31
_MASK = (1 << _HALF) - 1
_FIXED = (np.maximum, np.maximum, np.add, np.minimum, np.maximum)
"""How the columns from READY on become those of a common tile."""
_WANTED = {
    Statistic.SUM: (SUM,),
    Statistic.MEAN: (N, SUM),
    Statistic.STD: (N, SUM, HIGH, LOW),
    Statistic.MIN: (MIN,),
    Statistic.MAX: (MAX,),
    Statistic.LAST: (NEWEST,),
    Statistic.DISTINCT: (SKETCHED,),
}


@dataclass(frozen=True, kw_only=True)
class TileLayout:
    """A view's tiles, compiled: which parts they keep, and where."""

    hop: int
    """Microseconds."""
    place: Int64
    """int64[VALUES + c, 8]: by column of a record and part, the column of a tile; −1: not kept."""
    width: int
    sketched: tuple[int, ...]
    """Columns of a record whose different values are counted."""
    retracts: bool


@dataclass(frozen=True, kw_only=True)
class Summaries:
    """Tiles of any keys in order of (key, edge), before they belong to `Events`."""

    codes: Int64
    """int64[k], the key of each."""
    records: Int64
    """int64[k, width]."""
    sketches: Int64
    """Hashes by tile, then by sketched column, ascending."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles of m keys, beside `Events`; those of key i are the rows offsets[i]:offsets[i+1] of `records`."""

    offsets: Int64
    """int64[m + 1]."""
    records: Int64
    """int64[k, width]."""
    ranges: Int64
    """int64[k, 2]: the tile's events, where they are still at hand: rows of `Events.records`; −1: only the tile is."""
    loose: Int64
    """int64[m]: from here on the key's events are in no tile."""
    sketches: Int64
    sketch_at: Int64
    """int64[k × d + 1]: where the hashes of each tile and sketched column begin."""


def tile_layout(view: WindowView) -> TileLayout:
    """Return the compiled tiles of a view."""
    place = np.full((VALUES + len(view.columns), 8), -1, np.int64)
    width = PARTS
    for number, column in enumerate(view.columns):
        parts = {part for a in view.aggregates if (a.column, a.scale) == column for part in _WANTED[a.statistic]}
        for part in sorted(parts):
            place[VALUES + number, part] = width
            width += 1
    return TileLayout(
        hop=view.step,
        place=place,
        width=width,
        sketched=tuple(np.flatnonzero(place[:, SKETCHED] >= 0).tolist()),
        retracts=view.source.retracts is not None,
    )


def edges(layout: TileLayout, event_time: Int64) -> Int64:
    """Return the edge of each event's tile."""
    return -(-event_time // layout.hop) * layout.hop


def summarise(layout: TileLayout, codes: Int64, records: Int64) -> tuple[Summaries, Int64]:
    """Return the tiles of events in order of (key, event_time, known_time, id), and where the events of each begin."""
    edge = edges(layout, records[:, EVENT])
    starts = _starts(codes, edge)
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(codes))))
    taken = records[:, -1] if layout.retracts else np.full(len(codes), FOREVER)
    counts = taken == FOREVER
    known = np.maximum(records[:, EVENT], np.where(records[:, KNOWN] == FOREVER, NULL, records[:, KNOWN]))
    last = np.maximum.reduceat(np.where(counts, np.arange(len(codes)), -1), starts) if len(starts) else starts
    made = np.empty((len(starts), layout.width), np.int64)
    made[:, EDGE] = edge[starts]
    fixed = (
        np.maximum(known, np.where(counts, NULL, taken)),
        records[:, EVENT],
        counts.astype(np.int64),
        np.where(counts, records[:, EVENT], _HIGHEST),
        np.where(counts, records[:, EVENT], NULL),
    )
    for column, (how, values) in enumerate(zip(_FIXED, fixed, strict=True), READY):
        _fill(made, column, how, values, starts)
    hashes: list[tuple[Int64, Int64]] = []
    for column in range(VALUES, len(layout.place)):
        place, values = layout.place[column], records[:, column]
        there = counts & (values != NULL)
        _fill(made, place[N], np.add, there.astype(np.int64), starts)
        _fill(made, place[SUM], np.add, np.where(there, values, 0), starts)
        _fill(made, place[MIN], np.minimum, np.where(there, values, _HIGHEST), starts)
        _fill(made, place[MAX], np.maximum, np.where(there, values, NULL), starts)
        if place[NEWEST] >= 0:
            made[:, place[NEWEST]] = np.where(last >= 0, values[last], NULL)
        if place[HIGH] >= 0:
            high, low = _squares(np.where(there, values, 0))
            made[:, place[HIGH]], made[:, place[LOW]] = _carried(high, low, starts)
        if place[SKETCHED] >= 0:
            hashes.append((group[there], values[there]))
    sketches = _sketch(layout, made, hashes)
    return Summaries(codes=codes[starts], records=made, sketches=sketches), starts


def combine(layout: TileLayout, older: Summaries, newer: Summaries) -> Summaries:
    """Return tiles of both; where they share an edge, the newer one's events all come after the older one's."""
    codes = np.concatenate([older.codes, newer.codes])
    records = np.concatenate([older.records, newer.records])
    order = np.lexsort([records[:, EDGE], codes])  # stable: the older first
    codes, records = codes[order], records[order]
    starts = _starts(codes, records[:, EDGE])
    made = records[starts]
    for column, how in enumerate(_FIXED, READY):
        _fill(made, column, how, records[:, column], starts)
    ends = np.append(starts, len(codes))[1:] - 1
    newest = np.where(records[ends, COUNT] > 0, ends, starts)
    group = np.empty(len(codes), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(codes))))
    hashes: list[tuple[Int64, Int64]] = []
    for column in range(VALUES, len(layout.place)):
        place = layout.place[column]
        for part, how in ((N, np.add), (SUM, np.add), (MIN, np.minimum), (MAX, np.maximum)):
            _fill(made, place[part], how, records[:, place[part]], starts)
        if place[NEWEST] >= 0:
            made[:, place[NEWEST]] = records[newest, place[NEWEST]]
        if place[HIGH] >= 0:
            both = _carried(records[:, place[HIGH]], records[:, place[LOW]], starts)
            made[:, place[HIGH]], made[:, place[LOW]] = both
        if place[SKETCHED] >= 0:
            owners, values = zip(*(_hashes(layout, each, column) for each in (older, newer)), strict=True)
            shifted = np.concatenate([owners[0], owners[1] + len(older.codes)])
            hashes.append((group[shifted], np.concatenate(values)))
    return Summaries(codes=codes[starts], records=made, sketches=_sketch(layout, made, hashes))


def tiled(layout: TileLayout, events: Events, *, more_than: int) -> Tiles:
    """Return tiles of all events of the keys that have more than so many; they stay at hand beneath."""
    counts = np.diff(events.offsets)
    many = counts > more_than
    codes = np.repeat(np.arange(len(counts)), counts)
    chosen = np.flatnonzero(np.repeat(many, counts))
    made, starts = summarise(layout, codes[chosen], events.records[chosen])
    begins = chosen[starts]
    sizes = np.diff(np.append(starts, len(chosen)))
    loose = np.where(many, events.offsets[1:], events.offsets[:-1])
    return tiles_of(layout, made, loose, ranges=np.stack([begins, begins + sizes], axis=1))


def tiles_of(layout: TileLayout, made: Summaries, loose: Int64, *, ranges: Int64 | None = None) -> Tiles:
    """Return tiles as the kernel takes them, for as many keys as `loose` has."""
    offsets = np.zeros(len(loose) + 1, np.int64)
    np.cumsum(np.bincount(made.codes, minlength=len(loose)), out=offsets[1:])
    sizes = made.records[:, [layout.place[column, SKETCHED] for column in layout.sketched]]
    return Tiles(
        offsets=offsets,
        records=np.ascontiguousarray(made.records),
        ranges=np.full((len(made.records), 2), -1, np.int64) if ranges is None else ranges.astype(np.int64),
        loose=loose.astype(np.int64),
        sketches=made.sketches,
        sketch_at=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )


def select(layout: TileLayout, tiles: Tiles, chosen: npt.NDArray[np.bool_]) -> Summaries:
    """Return some of the tiles."""
    width = len(layout.sketched)
    sizes = (
        np.diff(tiles.sketch_at).reshape(len(tiles.records), width).sum(axis=1)
        if width
        else np.zeros(len(chosen), np.int64)
    )
    return Summaries(
        codes=np.repeat(np.arange(len(tiles.loose)), np.diff(tiles.offsets))[chosen],
        records=tiles.records[chosen],
        sketches=tiles.sketches[np.repeat(chosen, sizes)],
    )


def mixed(identities: Int64) -> Int64:
    """Return identities spread evenly over all int64, each as another (the finaliser of SplitMix64)."""
    bits = identities.astype(np.int64).view(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return (bits ^ (bits >> np.uint64(31))).view(np.int64)


def _starts(codes: Int64, edge: Int64) -> Int64:
    """Return where each run of equal (key, edge) begins."""
    if len(codes) == 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.append(True, (codes[1:] != codes[:-1]) | (edge[1:] != edge[:-1])))


def _reduced(how: np.ufunc, values: Int64, starts: Int64) -> Int64:
    return np.asarray(how.reduceat(values, starts), np.int64) if len(starts) else np.zeros(0, np.int64)


def _fill(made: Int64, column: int, how: np.ufunc, values: Int64, starts: Int64) -> None:
    """Put the reduced values into a column of tiles, if they keep it."""
    if column >= 0:
        made[:, column] = _reduced(how, values, starts)


def _squares(values: Int64) -> tuple[Int64, Int64]:
    """Return the squares of values under 2⁵³ as high × 2⁶² + low."""
    value = np.abs(values)
    a, b = value >> _HALF, value & _MASK
    middle = a * b  # counts 2³² times
    low = b * b + ((middle & (2**30 - 1)) << 32)
    return a * a + (middle >> 30) + (low >> 62), low & (2**62 - 1)


def _carried(high: Int64, low: Int64, starts: Int64) -> tuple[Int64, Int64]:
    """Return the sums of runs of (high, low), low again under 2⁶²."""
    halves = _reduced(np.add, low & _MASK, starts)
    upper = _reduced(np.add, low >> _HALF, starts) + (halves >> _HALF)
    return _reduced(np.add, high, starts) + (upper >> _HALF), ((upper & _MASK) << _HALF) | (halves & _MASK)


def _hashes(layout: TileLayout, made: Summaries, column: int) -> tuple[Int64, Int64]:
    """Return the tile and the value of each hash that a column's sketches hold."""
    sizes = made.records[:, [layout.place[each, SKETCHED] for each in layout.sketched]]
    which = np.repeat(np.arange(sizes.size), sizes.ravel())
    own = which % len(layout.sketched) == layout.sketched.index(column)
    return which[own] // len(layout.sketched), made.sketches[own]


def _sketch(layout: TileLayout, made: Int64, hashes: Sequence[tuple[Int64, Int64]]) -> Int64:
    """Fill in how many hashes each tile keeps per sketched column, and return them by tile and column."""
    kept: list[tuple[Int64, Int64]] = []
    for number, (column, (owner, value)) in enumerate(zip(layout.sketched, hashes, strict=True)):
        order = np.lexsort([value, owner])
        group, values = owner[order], value[order]
        new = np.append(True, (group[1:] != group[:-1]) | (values[1:] != values[:-1]))[: len(group)]
        group, values = group[new], values[new]
        sizes = np.bincount(group, minlength=len(made))
        small = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < SKETCH
        made[:, layout.place[column, SKETCHED]] = np.minimum(sizes, SKETCH)
        kept.append((group[small] * len(layout.sketched) + number, values[small]))
    if not kept:
        return np.zeros(0, np.int64)
    owners, all_values = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return all_values[np.argsort(owners, kind="stable")]
