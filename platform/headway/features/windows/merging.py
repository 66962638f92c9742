"""What a key's online value becomes when events arrive: merged, pruned, capped, and summed up into tiles.

Pure: from the stored values and the new events to the values to store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.core.types import Int64
from headway.features.definitions import Overflow, WindowView
from headway.features.status import SLACK
from headway.features.windows import codec
from headway.features.windows.events import Events, grouped
from headway.features.windows.scan import EVENT, FOREVER, KNOWN, NULL
from headway.features.windows.tiles import (
    EDGE,
    FEW,
    LATEST,
    READY,
    TileLayout,
    Tiles,
    combine,
    edges,
    select,
    summarise,
    tile_layout,
    tiles_of,
)

_SINGLE = 256
"""Of a busy key so many events stay single, whatever their age."""


@dataclass(kw_only=True)
class Merged:
    """The outcome for m keys."""

    values: list[bytes] = field(default_factory=list)
    """One per key."""
    pruned: int = 0
    """Events that no window reaches any more."""
    overflowed: int = 0
    """Events beyond `max_events`."""
    newest: Int64
    """int64[m]: the newest event time of each key."""
    late: npt.NDArray[np.bool_]
    """bool[m]: keys with events from before the end of a tile, which cannot tell whether it has them: their value is
    none, they have to be made anew from the key's whole history."""


def merge(view: WindowView, new: Events, stored: Sequence[bytes | None], *, anew: bool = False) -> Merged:
    """Return the new value of each key of `new`.

    Args:
        view: Whose keys.
        new: What arrived.
        stored: The value of each key, in the same order.
        anew: `new` is the whole history: of the stored values only the sequences go on.
    """
    layout = None if view.exact else tile_layout(view)
    old, sequences = codec.unpack(view, stored, layout)
    if anew:
        old, _ = codec.unpack(view, [None] * len(stored), layout)
    both = Events(
        keys=np.arange(len(stored)),
        offsets=new.offsets,
        records=new.records,
        truncated_before=old.truncated_before,
        tiles=old.tiles,
    )
    if len(old):
        records = np.concatenate([old.records, new.records])
        retracts = view.source.retracts is not None
        codes = np.concatenate([_codes(old), _codes(new)])
        offsets, records = grouped(codes, len(stored), records, retracts=retracts)
        both = replace(both, offsets=offsets, records=records)
    if layout is None or old.tiles is None:
        return _exact(view, both, new, sequences)
    return _tiled(view, layout, both, _late(layout, old.tiles, new), sequences)


def _exact(view: WindowView, both: Events, new: Events, sequences: Sequence[int]) -> Merged:
    """Return values that hold every event within reach, up to the cap."""
    start, end = both.offsets[:-1], both.offsets[1:]
    first = _within_reach(view, both, _newest(both))
    begin = first
    if view.max_events is not None:
        if view.overflow is Overflow.REJECT:
            full = np.flatnonzero(end - first > view.max_events)
            if len(full):
                raise InvalidValue(
                    ", ".join(view.entity.keys),
                    f"{new.keys[full[0]]} has more than {view.max_events} events in {view.name}",
                    hint="raise max_events or drop the oldest",
                )
        begin = np.maximum(first, end - (view.max_events + view.max_events // 8 + 8))
    forgotten = _forgotten(both, begin)
    values = [
        codec.pack(sequences[i] + 1, int(forgotten[i]), both.records[begin[i] : end[i]].tobytes())
        for i in range(len(sequences))
    ]
    return Merged(
        values=values,
        pruned=int((first - start).sum()),
        overflowed=int((begin - first).sum()),
        newest=both.event_time[end - 1],
        late=np.zeros(len(values), np.bool_),
    )


def _tiled(
    view: WindowView, layout: TileLayout, both: Events, late: npt.NDArray[np.bool_], sequences: Sequence[int]
) -> Merged:
    """Return values that hold tiles of what is settled and the other events one by one."""
    tiles = both.tiles
    assert tiles is not None  # the view has them
    owners = np.repeat(np.arange(len(sequences)), np.diff(tiles.offsets))
    newest = _newest(both)
    np.maximum.at(newest, owners, tiles.records[:, READY])
    begin = _within_reach(view, both, newest)
    forgotten = _forgotten(both, begin)
    reached = np.ones(len(owners), np.bool_)
    if view.horizon is not None:
        reached = tiles.records[:, LATEST] > newest[owners] - view.horizon - SLACK
        np.maximum.at(forgotten, owners[~reached], tiles.records[~reached, LATEST])
    settled = _settled(layout, both, begin, newest)
    made, _ = summarise(layout, _codes(both)[settled], both.records[settled])
    after = tiles_of(layout, combine(layout, select(layout, tiles, reached), made), both.offsets[:-1])
    single = np.ones(len(both), np.bool_)
    single[settled] = False
    hashes = after.sketch_at[:: max(1, len(layout.sketched))]
    latest = both.event_time[both.offsets[1:] - 1]
    np.maximum.at(latest, owners, tiles.records[:, LATEST])
    values = []
    for i, sequence in enumerate(sequences):
        own = slice(after.offsets[i], after.offsets[i + 1])
        events = both.records[begin[i] : both.offsets[i + 1]][single[begin[i] : both.offsets[i + 1]]]
        some = after.sketches[hashes[own.start] : hashes[own.stop]] if layout.sketched else after.sketches
        values.append(codec.pack(sequence + 1, int(forgotten[i]), codec.tiles_body(after.records[own], some, events)))
    return Merged(values=values, pruned=int((begin - both.offsets[:-1]).sum()), newest=latest, late=late)


def _late(layout: TileLayout, tiles: Tiles, new: Events) -> npt.NDArray[np.bool_]:
    """Return the keys with new events that are not newer than all that their tile sums up."""
    late = np.zeros(len(new.keys), np.bool_)
    for i in np.flatnonzero(np.diff(tiles.offsets)).tolist():
        own = tiles.records[tiles.offsets[i] : tiles.offsets[i + 1]]
        moments = new.event_time[new.offsets[i] : new.offsets[i + 1]]
        edge = edges(layout, moments)
        place = np.minimum(np.searchsorted(own[:, EDGE], edge), len(own) - 1)
        late[i] = bool(((own[place, EDGE] == edge) & (moments <= own[place, LATEST])).any())
    return late


def _settled(layout: TileLayout, both: Events, begin: Int64, newest: Int64) -> Int64:
    """Return the places of events to sum up: old enough, none before them in their tile that is not, and worth it.

    Of a key with more than `_SINGLE` events the oldest count as old enough.
    """
    codes = _codes(both)
    counts = both.offsets[1:] - begin
    place = np.arange(len(both))
    kept = (place >= begin[codes]) & (counts[codes] > FEW)
    places, codes, records = place[kept], codes[kept], both.records[kept]
    if len(places) == 0:
        return places
    moment = np.maximum(_known(records), records[:, EVENT])
    if layout.retracts:
        moment = np.maximum(moment, np.where(records[:, -1] == FOREVER, NULL, records[:, -1]))
    old = (moment <= newest[codes] - SLACK) | (places < both.offsets[1:][codes] - _SINGLE)
    old &= records[:, KNOWN] != FOREVER  # only its retraction has come
    edge = edges(layout, records[:, EVENT])
    starts = np.flatnonzero(np.append(True, (codes[1:] != codes[:-1]) | (edge[1:] != edge[:-1])))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(codes))))
    open_from = np.minimum.reduceat(np.where(old, FOREVER, records[:, EVENT]), starts)
    old &= records[:, EVENT] < open_from[group]
    saved = np.bincount(group[old], minlength=len(starts)) * records.shape[1] - layout.width
    chosen: Int64 = places[old & (saved[group] > 0)]
    return chosen


def _within_reach(view: WindowView, both: Events, newest: Int64) -> Int64:
    """Return where the events begin that a window may still reach."""
    start, end = both.offsets[:-1], both.offsets[1:]
    if view.horizon is None:
        return start
    too_old = both.event_time <= np.repeat(newest - view.horizon - SLACK, end - start)
    return start + np.add.reduceat(too_old.astype(np.int64), start)


def _forgotten(both: Events, begin: Int64) -> Int64:
    """Return up to when each key's events are forgotten, now that they begin there."""
    forgotten = both.truncated_before.copy()
    dropped = begin > both.offsets[:-1]
    forgotten[dropped] = np.maximum(forgotten[dropped], both.event_time[begin[dropped] - 1])
    return forgotten


def _newest(both: Events) -> Int64:
    """Return the largest known_time of each key; every key has an event."""
    return np.asarray(np.maximum.reduceat(_known(both.records), both.offsets[:-1]), np.int64)


def _known(records: Int64) -> Int64:
    return np.where(records[:, KNOWN] == FOREVER, records[:, EVENT], records[:, KNOWN])


def _codes(events: Events) -> Int64:
    return np.repeat(np.arange(len(events.offsets) - 1), np.diff(events.offsets))
