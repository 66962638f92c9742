"""The inner loop of window features: one backward walk over a key's events per row, compiled to machine code.

A request has few rows, and there the price of a vectorised formulation is not arithmetic but some forty calls into
numpy. A compiled loop is cheap for one row and for millions, and it reads like the definition. The distinct ends of a
view's windows cut the time before t into bands, numbered from 0 at t; each event falls into one band, and every window
is a run of bands. A view of hop tiles adds whole tiles to the bands where it can, to the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

EVENT, KNOWN, ID, VALUES = range(4)
"""Columns of a record; values begin at the last. This and all that follows is frozen into the compiled loop, and stands
here because numba compiles anew when this file changes, and does not look at others."""
NULL = np.iinfo(np.int64).min
"""A missing value of a kept column."""
NEVER = np.iinfo(np.int64).min
"""`truncated_before` of a key that forgot nothing."""
FOREVER = np.iinfo(np.int64).max
"""`known_time` of an event of which only the retraction came so far, and `until` of one that was not taken back."""
COUNT, SUM, MEAN, MIN, MAX, LAST, SINCE_FIRST, SINCE_LAST, STD, DISTINCT = range(10)
PRESENT, MISSING, EXPIRED, TRUNCATED = 0, 1, 2, 5
_EDGE, _READY, _LATEST, _COUNT, _FIRST, _LAST = range(6)
_N, _SUM, _MIN, _MAX, _HIGH, _LOW, _NEWEST, _SKETCHED = range(8)
_HIGHEST = np.iinfo(np.int64).max
_DAY = 86_400_000_000.0
"""Microseconds."""
SKETCH = 128
"""Hashes kept per tile; the relative standard error of a count beyond is 1 / √(SKETCH − 2)."""
_HALF = (1 << 31) - 1
_LOWER = (1 << 62) - 1
"""A sum of squares is kept as high × 2⁶² + low, so that it is exact and no order of adding matters."""


@cache
def compiled() -> Callable[..., None]:
    """Return `_scan` as machine code; it is compiled once per installation and then loaded from numba's cache."""
    import numba  # heavy: only processes that evaluate features pay for it

    def read(dtype: Any, dimensions: int) -> Any:
        return numba.types.Array(dtype, dimensions, "C", readonly=True)

    i8, f8 = numba.int64, numba.float64
    events = (read(i8, 1), read(i8, 2), read(i8, 1))
    tiles = (read(i8, 1), read(i8, 2), read(i8, 2), read(i8, 1), read(i8, 1), read(i8, 1))
    rows = (read(i8, 1), read(i8, 1), numba.boolean)
    plan = (read(i8, 1), i8, numba.boolean, i8, read(i8, 2), read(i8, 2), read(f8, 1), i8)
    out = (numba.types.Array(numba.float32, 2, "C"), numba.types.Array(numba.uint8, 1, "C"))
    signature = numba.void(*events, *tiles, *rows, *plan, *out)
    jit = partial(numba.njit, cache=True, nogil=True)
    globals().update(_spread=jit(_spread), _different=jit(_different))  # `_scan` calls the compiled ones
    made: Callable[..., None] = jit(signature)(_scan)
    return made


def _spread(amount: Any, some: Any, high: Any, low: Any) -> Any:
    """Return the population standard deviation of `some` integers from their sum and the sums of their squares.

    Σ(x − m)² = Σx² − m (Σx + r), where Σx = some × m + r; all of it in integers, so that nothing cancels.
    """
    mean = abs(amount) // some
    rest = abs(amount) - some * mean
    both = abs(amount) + rest
    middle = (mean >> 31) * (both & _HALF) + (mean & _HALF) * (both >> 31)
    product = (mean & _HALF) * (both & _HALF)
    upper = -((mean >> 31) * (both >> 31) + (middle >> 31) + (product >> 62))
    lower = (product & _LOWER) + ((middle & _HALF) << 31)
    upper -= lower >> 62
    lower = -(lower & _LOWER)
    for band in range(len(high)):
        upper += high[band]
        lower += low[band]
        if lower > _LOWER:
            upper += 1
            lower -= _LOWER + 1
    if lower < 0:
        upper -= 1
        lower += _LOWER + 1
    squares = (upper * 2.0**62 + lower) / some - (rest / some) * (rest / some)
    return np.sqrt(max(squares, 0.0))


def _different(values: Any, hashed: Any) -> Any:
    """Return how many values differ: counted, or estimated from the `SKETCH` smallest where they are hashes."""
    values.sort()
    count = 0
    for position in range(len(values)):
        if position == 0 or values[position] != values[position - 1]:
            count += 1
            if hashed and count == SKETCH:  # they lie evenly in 2⁶⁴
                return (SKETCH - 1) / (values[position] / 2.0**64 + 0.5)
    return float(count)


def _scan(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915  # compiled whole; its types are above
    offsets, records, truncated_before,
    tile_offsets, tiles, ranges, loose, sketches, sketch_at,
    row_key, at, cutoff,
    bounds, max_events, endless, hop, features, place, scales, until,
    columns, status,
):  # fmt: skip
    """Fill `columns` float32[f, n] and `status` uint8[n].

    Args:
        offsets: int64[m + 1], where each key's events begin; they are in order of event time.
        records: int64[e, 3 + c]; a value is `NULL` where there is none.
        truncated_before: int64[m].
        tile_offsets: int64[m + 1], where each key's tiles begin, in order of their edges; without tiles int64[0], and
            so are the next five arguments empty (see `Tiles`).
        tiles: int64[k, w].
        ranges: int64[k, 2].
        loose: int64[m].
        sketches: int64[s].
        sketch_at: int64[k × d + 1].
        row_key: int64[n], −1: no key.
        at: int64[n], decision times.
        cutoff: Whether an event counts only once it is known.
        bounds: int64[b], distances of window ends from t, ascending.
        max_events: Of a key's events known at t only so many, the newest, count; −1: all.
        endless: Whether a window goes back to the first event.
        hop: Events are as old as the upper edge of their tile; 1: as old as they are.
        features: int64[f, 5]: statistic, column of a record (−1: none), first and last band, place among the sketched
            columns (−1: values are counted one by one).
        place: int64[3 + c, 8]: column of a tile by column of a record and part.
        scales: float64[f].
        until: Column of a record with the known_time from which on the event is taken back; −1: there is none.
        columns: The features.
        status: One per row.
    """
    bands = len(bounds) + 1
    lowest = bounds[bands - 2] if bands > 1 else 0
    width = records.shape[1] if until < 0 else until
    squared = np.zeros(width, np.bool_)
    for feature in range(len(features)):
        if features[feature, 0] == STD:
            squared[features[feature, 1]] = True
    count = np.empty(bands, np.int64)
    first_time = np.empty(bands, np.int64)
    last_time = np.empty(bands, np.int64)
    present = np.empty((width, bands), np.int64)
    total = np.empty((width, bands), np.int64)
    least = np.empty((width, bands), np.int64)
    most = np.empty((width, bands), np.int64)
    high = np.empty((width, bands), np.int64)
    low = np.empty((width, bands), np.int64)
    newest = np.empty((width, bands), np.int64)
    longest = 0
    whole_tiles = 0
    for row in range(len(at)):
        if row_key[row] >= 0:
            longest = max(longest, offsets[row_key[row] + 1] - offsets[row_key[row]])
            if len(tiles):
                whole_tiles = max(whole_tiles, tile_offsets[row_key[row] + 1] - tile_offsets[row_key[row]])
    visited = np.empty(longest if max_events < 0 else min(longest, max_events), np.int64)
    visited_band = np.empty(len(visited), np.int64)
    added = np.empty(whole_tiles, np.int64)
    added_band = np.empty(whole_tiles, np.int64)
    sketched = 0 if len(tiles) == 0 else (len(sketch_at) - 1) // len(tiles)
    for row in range(len(at)):
        t = at[row]
        key = row_key[row]
        count[:] = 0
        first_time[:] = _HIGHEST
        last_time[:] = NULL
        present[:] = 0
        total[:] = 0
        least[:] = _HIGHEST
        most[:] = NULL
        high[:] = 0
        low[:] = 0
        newest[:] = NULL
        kept = 0
        visits = 0
        additions = 0
        truncated = False
        if key >= 0:
            begin, above = offsets[key], offsets[key + 1]
            if len(tiles):
                begin = loose[key]
            below = begin
            while below < above:  # the first event after t
                middle = (below + above) >> 1
                if records[middle, EVENT] <= t:
                    below = middle + 1
                else:
                    above = middle
            for position in range(below - 1, begin - 1, -1):
                if cutoff and records[position, KNOWN] > t:
                    continue
                if until >= 0 and records[position, until] <= (t if cutoff else FOREVER - 1):
                    continue
                distance = t - records[position, EVENT]
                if hop > 1:
                    distance = max(0, t + (-records[position, EVENT] // hop) * hop)
                reached = endless or distance < lowest
                if visits == max_events:
                    truncated = reached
                    break
                kept += 1
                if not reached:
                    break
                visited[visits] = position
                visits += 1
            if len(tiles):
                for position in range(tile_offsets[key + 1] - 1, tile_offsets[key] - 1, -1):
                    edge = tiles[position, _EDGE]
                    if edge - hop >= t:
                        continue
                    distance = max(0, t - edge)
                    reached = endless or distance < lowest
                    if tiles[position, _READY if cutoff else _LATEST] <= t:
                        kept += tiles[position, _COUNT]
                        if reached:
                            added[additions] = position
                            additions += 1
                    elif ranges[position, 0] >= 0:
                        for event in range(ranges[position, 1] - 1, ranges[position, 0] - 1, -1):
                            if records[event, EVENT] > t or (cutoff and records[event, KNOWN] > t):
                                continue
                            if until >= 0 and records[event, until] <= (t if cutoff else FOREVER - 1):
                                continue
                            kept += 1
                            if reached:
                                visited[visits] = event
                                visits += 1
                    elif tiles[position, _FIRST] <= t:
                        kept += 1
                        truncated = truncated or reached
                    if kept > 0 and not reached:
                        break
            forgotten = truncated_before[key]
            if forgotten != NEVER:
                kept += 1
                if hop > 1:
                    forgotten = -(-forgotten // hop) * hop
                truncated = truncated or endless or forgotten > t - lowest
        band = 0
        for visit in range(visits):
            position = visited[visit]
            moment = records[position, EVENT]
            distance = t - moment
            if hop > 1:
                distance = max(0, t + (-moment // hop) * hop)
            if band > 0 and distance < bounds[band - 1]:
                band = 0
            while band < bands - 1 and bounds[band] <= distance:
                band += 1
            visited_band[visit] = band
            count[band] += 1
            latest = moment > last_time[band]
            if latest:
                last_time[band] = moment
            first_time[band] = min(first_time[band], moment)
            for column in range(VALUES, width):
                value = records[position, column]
                if latest:
                    newest[column, band] = value
                if value != NULL:
                    present[column, band] += 1
                    total[column, band] += value
                    least[column, band] = min(least[column, band], value)
                    most[column, band] = max(most[column, band], value)
                    if squared[column]:
                        upper, lower = abs(value) >> 31, abs(value) & _HALF
                        middle = upper * lower
                        amount = lower * lower + ((middle & 0x3FFFFFFF) << 32)
                        high[column, band] += upper * upper + (middle >> 30) + (amount >> 62)
                        amount = low[column, band] + (amount & _LOWER)
                        high[column, band] += amount >> 62
                        low[column, band] = amount & _LOWER
        band = 0
        for addition in range(additions):
            position = added[addition]
            distance = max(0, t - tiles[position, _EDGE])
            while band < bands - 1 and bounds[band] <= distance:
                band += 1
            added_band[addition] = band
            if tiles[position, _COUNT] == 0:
                continue
            count[band] += tiles[position, _COUNT]
            latest = tiles[position, _LAST] > last_time[band]
            if latest:
                last_time[band] = tiles[position, _LAST]
            first_time[band] = min(first_time[band], tiles[position, _FIRST])
            for column in range(VALUES, width):
                if latest and place[column, _NEWEST] >= 0:
                    newest[column, band] = tiles[position, place[column, _NEWEST]]
                if place[column, _N] >= 0:
                    present[column, band] += tiles[position, place[column, _N]]
                if place[column, _SUM] >= 0:
                    total[column, band] += tiles[position, place[column, _SUM]]
                if place[column, _MIN] >= 0:
                    least[column, band] = min(least[column, band], tiles[position, place[column, _MIN]])
                if place[column, _MAX] >= 0:
                    most[column, band] = max(most[column, band], tiles[position, place[column, _MAX]])
                if place[column, _HIGH] >= 0:
                    amount = low[column, band] + tiles[position, place[column, _LOW]]
                    high[column, band] += tiles[position, place[column, _HIGH]] + (amount >> 62)
                    low[column, band] = amount & _LOWER
        found = False
        for feature in range(len(features)):
            statistic = features[feature, 0]
            column = features[feature, 1]
            first = features[feature, 2]
            last = features[feature, 3]
            events = 0
            for band in range(first, last + 1):
                events += count[band]
            found = found or events > 0
            result = np.nan
            if statistic == COUNT:
                result = float(events)
            elif statistic in (SUM, MEAN, STD):
                amount = 0
                some = 0
                for band in range(first, last + 1):
                    amount += total[column, band]
                    some += present[column, band]
                if statistic == SUM:
                    result = amount / scales[feature]
                elif some > 0 and statistic == MEAN:
                    result = amount / some / scales[feature]
                elif some > 0:
                    result = _spread(amount, some, high[column, first : last + 1], low[column, first : last + 1])
                    result /= scales[feature]
            elif statistic == DISTINCT:
                which = features[feature, 4]
                some = 0
                for band in range(first, last + 1):
                    some += present[column, band]
                for addition in range(additions):
                    if which >= 0 and first <= added_band[addition] <= last:
                        begin = added[addition] * sketched + which
                        some += sketch_at[begin + 1] - sketch_at[begin]
                values = np.empty(some, np.int64)
                some = 0
                for visit in range(visits):
                    value = records[visited[visit], column]
                    if first <= visited_band[visit] <= last and value != NULL:
                        values[some] = value
                        some += 1
                for addition in range(additions):
                    if which >= 0 and first <= added_band[addition] <= last:
                        begin = added[addition] * sketched + which
                        for position in range(sketch_at[begin], sketch_at[begin + 1]):
                            values[some] = sketches[position]
                            some += 1
                result = _different(values[:some], which >= 0)
            elif statistic == MIN:
                extreme = _HIGHEST
                for band in range(first, last + 1):
                    extreme = min(extreme, least[column, band])
                if extreme != _HIGHEST:
                    result = extreme / scales[feature]
            elif statistic == MAX:
                extreme = NULL
                for band in range(first, last + 1):
                    extreme = max(extreme, most[column, band])
                if extreme != NULL:
                    result = extreme / scales[feature]
            elif events > 0:
                moment = _HIGHEST if statistic == SINCE_FIRST else NULL
                value = NULL
                for band in range(first, last + 1):
                    if statistic == SINCE_FIRST:
                        moment = min(moment, first_time[band])
                    elif last_time[band] > moment:
                        moment = last_time[band]
                        if statistic == LAST:
                            value = newest[column, band]
                if statistic != LAST:
                    result = (t - moment) / _DAY
                elif value != NULL:
                    result = value / scales[feature]
            columns[feature, row] = result
        if truncated:
            status[row] = TRUNCATED
        elif found:
            status[row] = PRESENT
        elif kept > 0:
            status[row] = EXPIRED
        else:
            status[row] = MISSING
