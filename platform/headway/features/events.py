"""The events of a view in CSR form by key: the one in-memory shape that lake and online store both decode into.

Order inside a key is (event_time, known_time, id): a total order, so that ties resolve alike wherever events come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.core.types import Int64

NULL = np.iinfo(np.int64).min
"""A missing value of a kept column."""
NEVER = np.iinfo(np.int64).min
"""`truncated_before` of a key that forgot nothing."""
_LARGEST = float(2**53)
_FEW = 8
"""Up to so many ranges are looked through one by one: a table would cost more than it saves."""
_Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Events:
    """Events of m keys; the events of key i are the rows offsets[i]:offsets[i+1]."""

    keys: npt.NDArray[np.generic]
    """Distinct keys, int64 or object (str), ascending where they come from `build_events`."""
    offsets: Int64
    """int64[m + 1]."""
    event_time: Int64
    known_time: Int64
    values: Mapping[tuple[str, int], Int64]
    """(column, scale) → int64(round(value × scale)), `NULL` where there was none."""
    truncated_before: Int64
    """int64[m]: events up to and including this event time may have been forgotten; `NEVER`: none were."""
    ids: Int64 | None = None
    """Identity of each event (`event_ids`); only the stores need it."""

    @cached_property
    def index(self) -> EventIndex:
        """Return the search structure, built on first use."""
        return EventIndex(self)


class EventIndex:
    """Lets one `searchsorted` answer "how many events of key k up to time t" for many (k, t) at once.

    Each time becomes a number below `span`; key position × span + that number is ascending over all events. Where
    positions × the range of times would not fit 63 bits, times are replaced by their ranks, which always fit.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._ranks: Int64 | None = None
        m = len(events.keys)
        self._prefix: dict[tuple[str, int], tuple[Int64, Int64 | None]] = {}
        self._tables: dict[tuple[str, int, bool], list[Int64]] = {}
        self._plain = m == 1
        if self._plain:  # the usual request: one key's times are ascending as they are
            self.span = 0
            self.event = events.event_time
            self._order_known(events.known_time)
            return
        first = int(min(events.event_time.min(), events.known_time.min()))
        latest = int(max(events.event_time.max(), events.known_time.max()))
        self._first, self._latest = first, latest
        span = latest - first + 2
        if span * (m + 1) >= 2**63 or first <= NULL + 1:
            self._ranks = np.unique(np.concatenate([events.event_time, events.known_time]))
            span = len(self._ranks) + 1
        self.span = span
        counts = events.offsets[1:] - events.offsets[:-1]
        segment = np.repeat(np.arange(m, dtype=np.int64) * span, counts)
        self.event = self.number(events.event_time) + segment
        self._order_known(self.number(events.known_time) + segment)

    def _order_known(self, known: Int64) -> None:
        self.monotone = bool((known[1:] >= known[:-1]).all())
        """Whether every key's events became known in the order of their event times."""
        self.known_all = known if self.monotone else np.maximum.accumulate(known)
        """Ascending: an event before position p is known at t for sure if known_all[p − 1] ≤ t."""
        self.known_any = known if self.monotone else np.minimum.accumulate(known[::-1])[::-1]
        """Ascending: no event from position p on is known at t if known_any[p] > t."""

    def number(self, time: Int64) -> Int64:
        """Return the times as numbers in [0, span), order kept; of a single key the times themselves."""
        if self._plain:
            return time
        if self._ranks is not None:
            return np.searchsorted(self._ranks, time, side="right").astype(np.int64)
        return np.minimum(np.maximum(time - (self._first - 1), 0), self._latest - self._first + 1)

    def prefix(self, column: tuple[str, int]) -> tuple[Int64, Int64 | None]:
        """Return running sums (length e + 1) and running counts of values present (None: all are)."""
        made = self._prefix.get(column)
        if made is None:
            values = self._events.values[column]
            counts = None
            if int(values.min()) == NULL:
                present = values != NULL
                values = np.where(present, values, 0)
                counts = _running(present)
            made = self._prefix[column] = (_running(values), counts)
        return made

    def extreme(self, column: tuple[str, int], lo: Int64, hi: Int64, *, largest: bool) -> Int64:
        """Return min or max over [lo, hi) with lo < hi, by a sparse table: two overlapping power-of-two ranges."""
        tables = self._tables.setdefault((*column, largest), [])
        pick = np.maximum if largest else np.minimum
        if not tables:
            values = self._events.values[column]
            tables.append(values if largest else np.where(values == NULL, np.iinfo(np.int64).max, values))
        if len(lo) <= _FEW:
            ranges = zip(lo.tolist(), hi.tolist(), strict=True)
            return np.array([pick.reduce(tables[0][begin:end]) for begin, end in ranges], np.int64)
        level = np.frexp((hi - lo).astype(np.float64))[1].astype(np.int64) - 1
        for step in range(len(tables), int(level.max(initial=0)) + 1):
            below, half = tables[-1], 1 << (step - 1)
            tables.append(pick(below[:-half], below[half:]))
        found = np.empty(len(lo), np.int64)
        for step in np.unique(level):
            at = level == step
            found[at] = pick(tables[step][lo[at]], tables[step][hi[at] - (1 << int(step))])
        return found


def _running(values: npt.NDArray[np.generic]) -> Int64:
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, dtype=np.int64, out=sums[1:])
    return sums


def scaled(values: npt.NDArray[np.generic], scale: int, *, field: str) -> Int64:
    """Return int64(round(value × scale)), NaN as `NULL`; InvalidValue where the product is not exact in 53 bits."""
    if values.dtype.kind in "biu" and scale == 1:
        return values.astype(np.int64)
    product = np.rint(values.astype(np.float64) * scale)
    missing = np.isnan(product)
    if bool((np.abs(product) >= _LARGEST).any()):
        raise InvalidValue(field, f"a value × {scale} does not fit 53 bits", hint="declare a smaller scale")
    return np.where(missing, NULL, np.where(missing, 0.0, product).astype(np.int64))


def event_ids(ids: npt.NDArray[np.generic]) -> Int64:
    """Return integer ids as they are, strings as the first 8 bytes of their BLAKE2b (collisions within a key: 2⁻⁶⁴)."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64)
    raw = b"".join(hashlib.blake2b(str(item).encode(), digest_size=8).digest() for item in ids)
    return np.frombuffer(raw, "<i8").astype(np.int64)


def build_events(
    keys: npt.NDArray[np.generic],
    event_time: Int64,
    known_time: Int64,
    ids: Int64,
    values: Mapping[tuple[str, int], Int64],
) -> Events:
    """Group unordered events by key, sort them, and keep each id once per key.

    Of several events with one id the first known counts (then the smallest event_time, then the smallest values), so
    that a redelivery changes nothing and the outcome does not depend on the order of arrival. Rows whose key is None
    belong to nobody and are left out.
    """
    if keys.dtype.kind == "O":
        owned = np.array([key is not None for key in keys], dtype=np.bool_)
        if not owned.all():
            keys, event_time, known_time, ids = keys[owned], event_time[owned], known_time[owned], ids[owned]
            values = {name: column[owned] for name, column in values.items()}
    distinct, code = np.unique(keys, return_inverse=True)
    code = code.astype(np.int64)
    keep = _first_of_each_id(code, event_time, known_time, ids, values)
    if keep is not None:
        code, event_time, known_time, ids = code[keep], event_time[keep], known_time[keep], ids[keep]
        values = {name: column[keep] for name, column in values.items()}
    order = _order(code, event_time, known_time, ids)
    if order is not None:
        event_time, known_time, ids = event_time[order], known_time[order], ids[order]
        values = {name: column[order] for name, column in values.items()}
    offsets = np.zeros(len(distinct) + 1, np.int64)
    np.cumsum(np.bincount(code, minlength=len(distinct)), out=offsets[1:])
    return Events(
        keys=distinct,
        offsets=offsets,
        event_time=event_time,
        known_time=known_time,
        values=values,
        truncated_before=np.full(len(distinct), NEVER, np.int64),
        ids=ids,
    )


def _first_of_each_id(
    code: Int64, event_time: Int64, known_time: Int64, ids: Int64, values: Mapping[tuple[str, int], Int64]
) -> _Bool | None:
    """Return the mask of events to keep, or None where no id repeats."""
    if bool((ids[1:] > ids[:-1]).all()):
        return None
    by_id = np.sort(ids)
    if not bool((by_id[1:] == by_id[:-1]).any()):
        return None
    columns = [values[name] for name in sorted(values, reverse=True)]
    order = np.lexsort([*columns, event_time, known_time, ids, code])
    repeated = np.zeros(len(ids), np.bool_)
    sorted_code, sorted_ids = code[order], ids[order]
    repeated[1:] = (sorted_code[1:] == sorted_code[:-1]) & (sorted_ids[1:] == sorted_ids[:-1])
    keep = np.ones(len(ids), np.bool_)
    keep[order[repeated]] = False
    return keep


def _order(code: Int64, event_time: Int64, known_time: Int64, ids: Int64) -> Int64 | None:
    """Return the order by (key, event_time, known_time, id), or None where it is given already."""
    if len(code) == 0:
        return None
    first = int(event_time.min())
    span = int(event_time.max()) - first + 1
    if span * (int(code.max()) + 1) >= 2**63:
        return np.lexsort([ids, known_time, event_time, code])
    composite = code * span + (event_time - first)
    order = np.argsort(composite, kind="stable")
    composite = composite[order]
    tied = np.zeros(len(order), np.bool_)
    tied[1:] = composite[1:] == composite[:-1]
    tied[:-1] |= tied[1:]
    if tied.any():
        part = order[tied]
        order[tied] = part[np.lexsort([ids[part], known_time[part], composite[tied]])]
    return order.astype(np.int64)
