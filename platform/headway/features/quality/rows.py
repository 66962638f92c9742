"""What can be told of a row alone: which rows break which promise of their source, whole columns at once.

Used where rows are judged one by one: a message of a stream that breaks such a promise never becomes an event.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.arrow import ARROW_TYPES, whole
from headway.features.definitions import EventSource
from headway.features.quality.expectations import Expectation, Kind, Severity

Flags = npt.NDArray[np.bool_]
_INT64 = (-(2**63), 2**63 - 1)
_OF_ROWS = (Kind.NOT_NULL, Kind.BETWEEN, Kind.ONE_OF)


def judges_rows(expectation: Expectation) -> bool:
    """Return whether a single row can break it for good: no share of rows may."""
    return expectation.kind in _OF_ROWS and expectation.severity is Severity.REJECT and not expectation.tolerance


def row_breaches(source: EventSource, rows: pa.Table) -> list[tuple[Expectation, Flags]]:
    """Return the promises that single rows break, and which rows: `rows` as `conform` returns them."""
    found = []
    for expectation in source.expectations:
        if judges_rows(expectation):
            name = expectation.columns[0]
            flags = broken(expectation, whole(rows[name]), source.columns[name])
            if flags.any():
                found.append((expectation, flags))
    return found


def broken_rows(source: EventSource, rows: pa.Table) -> Flags:
    """Return the rows that alone would have their batch held: those above, and those known too late."""
    none = np.zeros(rows.num_rows, np.bool_)
    found = [none, *(flags for _, flags in row_breaches(source, rows))]
    for expectation in source.expectations:
        strict = expectation.severity is Severity.REJECT and not expectation.tolerance
        if strict and expectation.kind is Kind.KNOWN_WITHIN:
            found.append(late(rows, int(expectation.high or 0)))
    return np.asarray(np.logical_or.reduce(found), np.bool_)


def broken(expectation: Expectation, column: pa.Array, dtype: str) -> Flags:
    """Return which values break an expectation of kind not_null, between or one_of."""
    if expectation.kind is Kind.NOT_NULL:
        return flagged(pc.is_null(column, nan_is_null=True))
    if expectation.kind is Kind.BETWEEN:
        below = beyond(column, expectation.low, dtype, under=True)
        return below | beyond(column, expectation.high, dtype, under=False)
    known = pc.is_in(column, value_set=pa.array(expectation.values, ARROW_TYPES[dtype]))
    return flagged(pc.and_(pc.is_valid(column), pc.invert(known)))


def beyond(column: pa.Array, bound: float | None, dtype: str, *, under: bool) -> Flags:
    """Return which values lie below (or above) a bound, compared in the column's own dtype."""
    none = np.zeros(len(column), np.bool_)
    if bound is None:
        return none
    compare = pc.less if under else pc.greater
    if dtype == "int64":
        limit = math.ceil(bound) if under else math.floor(bound)
        if not _INT64[0] <= limit <= _INT64[1]:
            beyond_all = limit > 0 if under else limit < 0
            return flagged(pc.is_valid(column)) if beyond_all else none
        return flagged(compare(column, pa.scalar(limit, pa.int64())))
    wanted = float(np.float32(bound)) if dtype == "float32" else float(bound)
    return flagged(compare(column, pa.scalar(wanted, ARROW_TYPES[dtype])))


def late(rows: pa.Table, within: int) -> Flags:
    """Return which rows were known more than `within` microseconds after they happened."""
    happened, known = (np.asarray(whole(rows[name]).to_numpy(), np.int64) for name in (EVENT_TIME, KNOWN_TIME))
    latest = np.where(happened > _INT64[1] - within, _INT64[1], happened + within)
    return np.asarray(known > latest)


def flagged(found: pa.Array) -> Flags:
    """Return an Arrow array of booleans as flags; null is none."""
    return np.asarray(pc.fill_null(found, fill_value=False).to_numpy(zero_copy_only=False), np.bool_)
