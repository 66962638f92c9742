"""The newest source row of each label row's key, as of the label's time: the point-in-time rules as one compiled walk.

The label rows are sorted, the source rows are not: each source row is dropped into the first label of its key that may
see it (t ≥ event_time, with the cutoff t ≥ known_time too), the better row stays, and a sweep in the order of time then
hands the best so far to the next label. A row that is known late needs no special case, source rows may arrive in any
order and in any number of pieces, and memory follows the labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from headway.core.types import Int64

NONE = np.iinfo(np.int64).min
"""A known_time that is null: the least of ties, and never known where the cutoff is on."""
_EVENT, _KNOWN, _ID, _ROW = range(4)
_NOTHING = np.empty(0, np.int64)
_PRESENT, _MISSING, _EXPIRED = 0, 1, 2
"""Of `Status`, as numbers of this file: numba freezes them, and compiles anew when this file changes."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Label rows grouped by key and in order of time."""

    order: Int64
    """int64[n]: the label row at each place; rows without a key come first."""
    starts: Int64
    """int64[m + 1]: where each key's labels begin."""
    times: Int64
    """int64[n]: the label's time at each place."""

    def __len__(self) -> int:
        """Return the number of label rows."""
        return len(self.order)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The best source rows of some part of a source, by the place of the label that sees them first."""

    place: Int64
    """int64[c]."""
    rank: Int64
    """int64[c, 4]: event_time, known_time, id and number of the source row; the greatest counts."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What each label row rests on."""

    row: Int64
    """int64[n]: number of the source row, −1: none that counts."""
    status: npt.NDArray[np.uint8]
    """uint8[n]: `Status` PRESENT, MISSING or EXPIRED."""


def group(key: Int64, at: Int64, keys: int) -> Labels:
    """Return label rows in the order that the walk needs.

    Args:
        key: int64[n], key of each label row, −1: null or unknown.
        at: int64[n], its time, in the unit of the source's times.
        keys: Number of keys.
    """
    first, last = (int(at.min()), int(at.max())) if len(at) else (0, 0)
    span = last - first + 1
    # equal (key, time) have equal results, so the order need not be stable
    order = np.argsort(key * span + (at - first)) if span * (keys + 1) < 2**62 else np.lexsort([at, key])
    starts = np.zeros(keys + 2, np.int64)
    np.cumsum(np.bincount(key + 1, minlength=keys + 1), out=starts[1:])
    return Labels(order=order.astype(np.int64, copy=False), starts=starts[1:], times=at[order])


class AsOf:
    """One pass over a source, in pieces of any size and order; `found` may be asked once at the end."""

    def __init__(self, labels: Labels, *, cutoff: bool = False) -> None:
        """Hold label rows against a source.

        Args:
            labels: The label rows.
            cutoff: Whether a row counts only once it is known.
        """
        self._labels = labels
        self._cutoff = cutoff
        self._best = np.empty((len(labels), 4), np.int64)
        self._best[:, _ROW] = -1

    def add(
        self,
        key: Int64,
        event_time: Int64,
        known_time: Int64 | None = None,
        ids: Int64 | None = None,
        *,
        first: int = 0,
    ) -> int:
        """Take source rows and return how many of them tied with another down to known_time.

        Args:
            key: int64[k], key of each row as the labels count them, −1: of no label.
            event_time: int64[k].
            known_time: int64[k], `NONE` where it is null; without it, event_time.
            ids: int64[k], what decides between rows of one event_time and known_time; without it, their number.
            first: Number of the first of these rows; where ids are equal as well, the greatest number counts.
        """
        known = _NOTHING if known_time is None else known_time
        ties: int = _compiled().hold(
            self._labels.starts, self._labels.times,
            key, event_time, known, _NOTHING if ids is None else ids, first, self._cutoff, self._best,
        )  # fmt: skip
        return ties

    def candidates(self) -> Candidates:
        """Return what this pass found, to be merged with passes over other parts of the source."""
        place = np.flatnonzero(self._best[:, _ROW] >= 0)
        return Candidates(place=place, rank=self._best[place])

    def merge(self, other: Candidates) -> None:
        """Take what another pass over the same label rows found."""
        _compiled().merge(other.place, other.rank, self._best)

    def found(self, ttl: int | None = None) -> Found:
        """Return the newest row of each label row; one older than `ttl` (inclusive; None, 0: for ever) has expired."""
        row = np.empty(len(self._labels), np.int64)
        status = np.empty(len(self._labels), np.uint8)
        labels = self._labels
        _compiled().settle(labels.starts, labels.times, labels.order, ttl or 0, self._best, row, status)
        return Found(row=row, status=status)


def as_of(
    label_key: Int64, at: Int64, key: Int64, event_time: Int64, known_time: Int64 | None = None,
    ids: Int64 | None = None, *, keys: int, ttl: int | None = None, cutoff: bool = False,
) -> Found:  # fmt: skip
    """Return the newest row per label row where all source rows are at hand; arguments as in `group` and `AsOf.add`."""
    walk = AsOf(group(label_key, at, keys), cutoff=cutoff)
    walk.add(key, event_time, known_time, ids)
    return walk.found(ttl)


@dataclass(frozen=True, kw_only=True)
class _Compiled:
    hold: Callable[..., int]
    merge: Callable[..., None]
    settle: Callable[..., None]


@cache
def _compiled() -> _Compiled:
    """Return the loops as machine code; they are compiled once per installation and then loaded from numba's cache."""
    import numba  # heavy: only processes that join pay for it

    i8, flag, none = numba.int64, numba.boolean, numba.void

    def array(dimensions: int = 1, kind: Any = i8, readonly: bool = False) -> Any:
        return numba.types.Array(kind, dimensions, "C", readonly=readonly)

    read = array(readonly=True)

    def made(result: Any, arguments: tuple[Any, ...], function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = numba.njit(result(*arguments), cache=True, nogil=True)(function)
        return compiled

    return _Compiled(
        hold=made(i8, (read, read, read, read, read, read, i8, flag, array(2)), _hold),
        merge=made(none, (read, array(2, readonly=True), array(2)), _merge),
        settle=made(none, (read, read, read, i8, array(2), array(), array(kind=numba.uint8)), _settle),
    )


def _hold(  # type: ignore[no-untyped-def]  # noqa: PLR0912  # compiled whole; its types are above
    starts, times, key, event_time, known_time, ids, first, cutoff, best
):  # fmt: skip
    """Drop each source row into the first place that sees it; the greatest of a place stays."""
    ties = 0
    for i in range(len(key)):
        owner = key[i]
        if owner < 0:
            continue
        event = event_time[i]
        known = known_time[i] if len(known_time) > 0 else event
        visible = event
        if cutoff:
            if known == NONE:
                continue
            visible = max(visible, known)
        place, end = starts[owner], starts[owner + 1]
        above = end
        while place < above:  # the first label at or after `visible`
            middle = (place + above) >> 1
            if times[middle] < visible:
                place = middle + 1
            else:
                above = middle
        if place == end:
            continue
        number = first + i
        name = ids[i] if len(ids) > 0 else 0
        better = True
        if best[place, 3] >= 0:
            if event != best[place, 0]:
                better = event > best[place, 0]
            elif known != best[place, 1]:
                better = known > best[place, 1]
            else:
                ties += 1
                better = number > best[place, 3] if name == best[place, 2] else name > best[place, 2]
        if better:
            best[place, 0] = event
            best[place, 1] = known
            best[place, 2] = name
            best[place, 3] = number
    return ties


def _merge(place, rank, best):  # type: ignore[no-untyped-def]
    """Keep the greater of two candidates per place."""
    for i in range(len(place)):
        at = place[i]
        better = best[at, 3] < 0
        if not better:
            for part in range(4):
                if rank[i, part] != best[at, part]:
                    better = rank[i, part] > best[at, part]
                    break
        if better:
            for part in range(4):
                best[at, part] = rank[i, part]


def _settle(starts, times, order, ttl, best, row, status):  # type: ignore[no-untyped-def]
    """Carry the greatest row so far along each key's labels, and write the result at the label rows."""
    for place in range(starts[0]):
        row[order[place]] = -1
        status[order[place]] = _MISSING
    for owner in range(len(starts) - 1):
        carried = -1
        for place in range(starts[owner], starts[owner + 1]):
            if best[place, 3] >= 0:
                better = carried < 0
                if not better:
                    for part in range(4):
                        if best[place, part] != best[carried, part]:
                            better = best[place, part] > best[carried, part]
                            break
                if better:
                    carried = place
            label = order[place]
            if carried < 0:
                row[label] = -1
                status[label] = _MISSING
            elif ttl > 0 and times[place] - best[carried, 0] > ttl:
                row[label] = -1
                status[label] = _EXPIRED
            else:
                row[label] = best[carried, 3]
                status[label] = _PRESENT
