"""The events of a view in CSR form by key: the one in-memory shape that lake and online store both decode into.

Order inside a key is (event_time, known_time, id): a total order, so that ties resolve alike wherever events come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.core.types import Int64
from headway.features.windows.scan import EVENT, ID, KNOWN, NEVER, NULL, VALUES

if TYPE_CHECKING:
    from headway.features.windows.tiles import Tiles

_LARGEST = float(2**53)


@dataclass(frozen=True, kw_only=True)
class Events:
    """Events of m keys; the events of key i are the rows offsets[i]:offsets[i+1] of `records`."""

    keys: npt.NDArray[np.generic]
    """Distinct keys, int64 or object (str), ascending where they come from `build_events`."""
    offsets: Int64
    """int64[m + 1]."""
    records: Int64
    """int64[e, 3 + c], C-contiguous: event_time, known_time, id (`event_ids`), then one value per (column, scale) of
    the view, in its order: round(value × scale), `NULL` for none. Where the source takes events back, one more: the
    known_time from which on the event no longer counts, or `FOREVER`."""
    truncated_before: Int64
    """int64[m]: events up to and including this event time may have been forgotten; `NEVER`: none were."""
    tiles: Tiles | None = None
    """Sums of events that are not among the records any more; None: there are none, or the view has no tiles."""

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.records)

    @property
    def event_time(self) -> Int64:
        """int64[e]."""
        return self.records[:, EVENT]

    @property
    def known_time(self) -> Int64:
        """int64[e]."""
        return self.records[:, KNOWN]


def make_records(event_time: Int64, known_time: Int64, ids: Int64, values: Sequence[Int64]) -> Int64:
    """Return columns as the rows of `Events.records`."""
    return np.stack([event_time, known_time, ids, *values], axis=1)


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


def build_events(keys: npt.NDArray[np.generic], records: Int64, *, retracts: bool = False) -> Events:
    """Group unordered events by key, sort them, and keep each id once per key.

    Of several events with one id the first known counts (then the smallest event_time, then the smallest values), so
    that a redelivery changes nothing and the outcome does not depend on the order of arrival; with `retracts` it counts
    until the first of its retractions. Rows whose key is None belong to nobody and are left out.
    """
    if keys.dtype.kind == "O":
        owned = np.array([key is not None for key in keys], dtype=np.bool_)
        if not owned.all():
            keys, records = keys[owned], records[owned]
    distinct, code = np.unique(keys, return_inverse=True)
    offsets, records = grouped(code.astype(np.int64), len(distinct), records, retracts=retracts)
    return Events(
        keys=distinct, offsets=offsets, records=records, truncated_before=np.full(len(distinct), NEVER, np.int64)
    )


def grouped(code: Int64, keys: int, records: Int64, *, retracts: bool = False) -> tuple[Int64, Int64]:
    """Return offsets and records of the keys 0, 1, … as `build_events` orders them, from the key of each record."""
    first = _first_of_each_id(code, records, retracts)
    if first is not None:
        code, records = first
    order = _order(code, records)
    if order is not None:
        records = records[order]
    offsets = np.zeros(keys + 1, np.int64)
    np.cumsum(np.bincount(code, minlength=keys), out=offsets[1:])
    return offsets, np.ascontiguousarray(records)


def _first_of_each_id(code: Int64, records: Int64, retracts: bool) -> tuple[Int64, Int64] | None:
    """Return (key codes, events) with each id once, or None where no id repeats."""
    ids = records[:, ID]
    if bool((ids[1:] > ids[:-1]).all()):
        return None
    by_id = np.sort(ids)
    if not bool((by_id[1:] == by_id[:-1]).any()):
        return None
    order = np.lexsort([*records[:, VALUES:].T[::-1], records[:, EVENT], records[:, KNOWN], ids, code])
    repeated = np.zeros(len(ids), np.bool_)
    sorted_code, sorted_ids = code[order], ids[order]
    repeated[1:] = (sorted_code[1:] == sorted_code[:-1]) & (sorted_ids[1:] == sorted_ids[:-1])
    if retracts:
        records = records.copy()
        records[order[~repeated], -1] = np.minimum.reduceat(records[order, -1], np.flatnonzero(~repeated))
    keep = np.ones(len(ids), np.bool_)
    keep[order[repeated]] = False
    return code[keep], records[keep]


def _order(code: Int64, records: Int64) -> Int64 | None:
    """Return the order by (key, event_time, known_time, id)."""
    if len(code) == 0:
        return None
    event_time = records[:, EVENT]
    first = int(event_time.min())
    span = int(event_time.max()) - first + 1
    if span * (int(code.max()) + 1) >= 2**63:
        return np.lexsort([records[:, ID], records[:, KNOWN], event_time, code])
    composite = code * span + (event_time - first)
    order = np.argsort(composite, kind="stable")
    composite = composite[order]
    tied = np.zeros(len(order), np.bool_)
    tied[1:] = composite[1:] == composite[:-1]
    tied[:-1] |= tied[1:]
    if tied.any():
        part = order[tied]
        order[tied] = part[np.lexsort([records[part, ID], records[part, KNOWN], composite[tied]])]
    return order.astype(np.int64)
