"""The events of a view in CSR form by key: the one in-memory shape that lake and online store both decode into.

Order inside a key is (event_time, known_time, id): a total order, so that ties resolve alike wherever events come from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.core.types import Int64

NULL = np.iinfo(np.int64).min
"""A missing value of a kept column."""
NEVER = np.iinfo(np.int64).min
"""`truncated_before` of a key that forgot nothing."""
_LARGEST = float(2**53)
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
    values: Int64
    """int64[c, e]: one row per (column, scale) of the view, in its order: round(value × scale), `NULL` for none."""
    truncated_before: Int64
    """int64[m]: events up to and including this event time may have been forgotten; `NEVER`: none were."""
    ids: Int64 | None = None
    """Identity of each event (`event_ids`); only the stores need it."""


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
    values: Int64,
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
            values = values[:, owned]
    distinct, code = np.unique(keys, return_inverse=True)
    code = code.astype(np.int64)
    keep = _first_of_each_id(code, event_time, known_time, ids, values)
    if keep is not None:
        code, event_time, known_time, ids = code[keep], event_time[keep], known_time[keep], ids[keep]
        values = values[:, keep]
    order = _order(code, event_time, known_time, ids)
    if order is not None:
        event_time, known_time, ids = event_time[order], known_time[order], ids[order]
        values = values[:, order]
    offsets = np.zeros(len(distinct) + 1, np.int64)
    np.cumsum(np.bincount(code, minlength=len(distinct)), out=offsets[1:])
    return Events(
        keys=distinct,
        offsets=offsets,
        event_time=event_time,
        known_time=known_time,
        values=np.ascontiguousarray(values),
        truncated_before=np.full(len(distinct), NEVER, np.int64),
        ids=ids,
    )


def _first_of_each_id(code: Int64, event_time: Int64, known_time: Int64, ids: Int64, values: Int64) -> _Bool | None:
    """Return the mask of events to keep, or None where no id repeats."""
    if bool((ids[1:] > ids[:-1]).all()):
        return None
    by_id = np.sort(ids)
    if not bool((by_id[1:] == by_id[:-1]).any()):
        return None
    columns = list(values[::-1])
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
