"""The inner loop of window features: one backward walk over a key's events per row, compiled to machine code.

A request has few rows, and there the price of a vectorised formulation is not arithmetic but some forty calls into
numpy. A compiled loop is cheap for one row and for millions, and it reads like the definition. The distinct ends of a
view's windows cut the time before t into bands, numbered from 0 at t; each event falls into one band, and every window
is a run of bands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from headway.core.times import DAY
from headway.features.events import EVENT, FOREVER, KNOWN, NEVER, NULL, VALUES

COUNT, SUM, MEAN, MIN, MAX, LAST, SINCE_FIRST, SINCE_LAST, STD, DISTINCT = range(10)
PRESENT, MISSING, EXPIRED, TRUNCATED = 0, 1, 2, 5
_HIGHEST = np.iinfo(np.int64).max
_DAY = float(DAY)


@cache
def compiled() -> Callable[..., None]:
    """Return `_scan` as machine code; it is compiled once per installation and then loaded from numba's cache."""
    import numba  # heavy: only processes that evaluate features pay for it

    def read(dtype: Any, dimensions: int) -> Any:
        return numba.types.Array(dtype, dimensions, "C", readonly=True)

    i8, f8 = numba.int64, numba.float64
    events = (read(i8, 1), read(i8, 2), read(i8, 1))
    rows = (read(i8, 1), read(i8, 1), numba.boolean)
    plan = (read(i8, 1), i8, numba.boolean, read(i8, 2), read(f8, 1), i8)
    out = (numba.types.Array(numba.float32, 2, "C"), numba.types.Array(numba.uint8, 1, "C"))
    made: Callable[..., None] = numba.njit(numba.void(*events, *rows, *plan, *out), cache=True, nogil=True)(_scan)
    return made


def _scan(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915  # compiled whole; its types are above
    offsets, records, truncated_before,
    row_key, at, cutoff,
    bounds, max_events, endless, features, scales, until,
    columns, status,
):  # fmt: skip
    """Fill `columns` float32[f, n] and `status` uint8[n].

    Args:
        offsets: int64[m + 1], where each key's events begin; they are in order of event time.
        records: int64[e, 3 + c]; a value is `NULL` where there is none.
        truncated_before: int64[m].
        row_key: int64[n], −1: no key.
        at: int64[n], decision times.
        cutoff: Whether an event counts only once it is known.
        bounds: int64[b], distances of window ends from t, ascending.
        max_events: Of a key's events known at t only so many, the newest, count.
        endless: Whether a window goes back to the first event.
        features: int64[f, 4]: statistic, column of a record (−1: none), first and last band.
        scales: float64[f].
        until: Column of a record with the known_time from which on the event is taken back; −1: there is none.
        columns: The features.
        status: One per row.
    """
    bands = len(bounds) + 1
    lowest = bounds[bands - 2] if bands > 1 else 0
    width = records.shape[1] if until < 0 else until
    count = np.empty(bands, np.int64)
    newest = np.empty(bands, np.int64)
    oldest = np.empty(bands, np.int64)
    present = np.empty((width, bands), np.int64)
    total = np.empty((width, bands), np.int64)
    least = np.empty((width, bands), np.int64)
    most = np.empty((width, bands), np.int64)
    longest = 0
    for row in range(len(at)):
        if row_key[row] >= 0:
            longest = max(longest, offsets[row_key[row] + 1] - offsets[row_key[row]])
    visited = np.empty(min(longest, max_events), np.int64)
    for row in range(len(at)):
        t = at[row]
        key = row_key[row]
        count[:] = 0
        newest[:] = -1
        oldest[:] = -1
        present[:] = 0
        total[:] = 0
        least[:] = _HIGHEST
        most[:] = NULL
        kept = 0
        truncated = False
        if key >= 0:
            begin, above = offsets[key], offsets[key + 1]
            below = begin
            while below < above:  # the first event after t
                middle = (below + above) >> 1
                if records[middle, EVENT] <= t:
                    below = middle + 1
                else:
                    above = middle
            band = 0
            for position in range(below - 1, begin - 1, -1):
                if cutoff and records[position, KNOWN] > t:
                    continue
                if until >= 0 and records[position, until] <= (t if cutoff else FOREVER - 1):
                    continue
                distance = t - records[position, EVENT]
                reached = endless or distance < lowest
                if kept == max_events:
                    truncated = reached
                    break
                visited[kept] = position
                kept += 1
                if not reached:
                    break
                while band < bands - 1 and bounds[band] <= distance:
                    band += 1
                count[band] += 1
                if newest[band] < 0:
                    newest[band] = kept - 1
                oldest[band] = kept
                for column in range(VALUES, width):
                    value = records[position, column]
                    if value != NULL:
                        present[column, band] += 1
                        total[column, band] += value
                        least[column, band] = min(least[column, band], value)
                        most[column, band] = max(most[column, band], value)
            forgotten = truncated_before[key]
            if forgotten != NEVER:
                kept += 1
                truncated = truncated or endless or forgotten > t - lowest
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
                    average = amount / some
                    squares = 0.0
                    for band in range(first, last + 1):
                        for visit in range(newest[band], oldest[band]):
                            value = records[visited[visit], column]
                            if value != NULL:
                                squares += (value - average) * (value - average)
                    result = np.sqrt(squares / some) / scales[feature]
            elif statistic == DISTINCT:
                some = 0
                for band in range(first, last + 1):
                    some += present[column, band]
                values = np.empty(some, np.int64)
                some = 0
                for band in range(first, last + 1):
                    for visit in range(newest[band], oldest[band]):
                        value = records[visited[visit], column]
                        if value != NULL:
                            values[some] = value
                            some += 1
                values.sort()
                result = 0.0
                for position in range(some):
                    if position == 0 or values[position] != values[position - 1]:
                        result += 1.0
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
                position = -1
                for band in range(first, last + 1):
                    if count[band] > 0 and (position < 0 or statistic == SINCE_FIRST):
                        position = visited[oldest[band] - 1 if statistic == SINCE_FIRST else newest[band]]
                if statistic != LAST:
                    result = (t - records[position, EVENT]) / _DAY
                elif records[position, column] != NULL:
                    result = records[position, column] / scales[feature]
            columns[feature, row] = result
        if truncated:
            status[row] = TRUNCATED
        elif found:
            status[row] = PRESENT
        elif kept > 0:
            status[row] = EXPIRED
        else:
            status[row] = MISSING
