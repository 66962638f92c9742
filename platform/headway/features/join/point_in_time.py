"""Point-in-time features of label rows in one process: N rows in, N rows out, whatever the source is cut into."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Int64
from headway.features.arrow import events_by, key_columns, locate, times, whole
from headway.features.definitions import RowView, WindowView
from headway.features.join.as_of import AsOf, Found, group
from headway.features.windows.columns import WindowColumns, plan_of, window_columns
from headway.features.windows.events import Events, event_ids

_PIECE = 262_144
_DENSE = 1 << 22
Piece = Callable[[Sequence[str]], pa.Table]
"""Reads some columns of one piece of a source; the same rows in the same order at every call."""


@dataclass(frozen=True, kw_only=True)
class RowColumns:
    """One column per feature of a RowView in its own dtype, null where nothing counts, and one status per row."""

    table: pa.Table
    status: npt.NDArray[np.uint8]


class KeyIndex:
    """The distinct keys of label rows, numbered 0 … m − 1; composite keys are compared part by part, never as text."""

    def __init__(self, columns: Sequence[pa.ChunkedArray]) -> None:
        """Number the keys of label rows; a key with a null part is none, and without columns all rows have one key."""
        self._parts: list[pa.Array] = []
        self._pairs: list[pa.Array] = []
        code: Int64 | None = None
        for column in columns:
            encoded = whole(column).dictionary_encode()
            self._parts.append(encoded.dictionary)
            part = _numbers(encoded.indices)
            if code is None:
                code = part
                continue
            pair = _paired(code, part, len(encoded.dictionary))
            distinct = np.unique(pair[pair >= 0])
            self._pairs.append(pa.array(distinct))
            code = locate(distinct, pair)
        self._labels = code

    @classmethod
    def of(cls, table: pa.Table) -> KeyIndex:
        """Number the keys that the columns of a table are."""
        return cls(table.columns)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._pairs[-1]) if self._pairs else len(self._parts[0]) if self._parts else 1

    def labels(self, n: int) -> Int64:
        """Return int64[n], the numbers of the n label rows, −1: no key; they are handed over, not kept."""
        code, self._labels = self._labels, None
        return np.zeros(n, np.int64) if code is None else code

    def number(self, columns: Sequence[pa.ChunkedArray | pa.Array], n: int) -> Int64:
        """Return int64[n], the numbers of source rows' keys, −1: no label has it."""
        code = np.zeros(n, np.int64)
        for position, (column, known) in enumerate(zip(columns, self._parts, strict=True)):
            part = _find(whole(column), known)
            if position == 0:
                code = part
                continue
            pair = _paired(code, part, len(known))
            code = _numbers(pc.index_in(pa.array(pair), value_set=self._pairs[position - 1]))
        return code


def view_columns(
    view: WindowView, events: Events, keys: npt.NDArray[np.generic], at: Int64, *, cutoff: bool = True
) -> WindowColumns:
    """Evaluate a view for label rows in any order; keys may repeat, be unknown, or None.

    Rows are visited in the order of (key, time), in pieces: searches then run through neighbouring memory, which makes
    them several times faster than in the order of the labels.
    """
    plan = plan_of(view)
    position = locate(events.keys, keys)
    if len(at) <= 1_024:
        return window_columns(plan, events, position, at, cutoff=cutoff)
    order = np.lexsort([at, position])
    columns = {name: np.empty(len(at), np.float32) for name in view.features}
    status = np.empty(len(at), np.uint8)
    for begin in range(0, len(at), _PIECE):
        rows = order[begin : begin + _PIECE]
        piece = window_columns(plan, events, position[rows], at[rows], cutoff=cutoff)
        status[rows] = piece.status
        for name, column in piece.columns.items():
            columns[name][rows] = column
    return WindowColumns(columns=columns, status=status)


def window_features(
    view: WindowView, table: pa.Table, keys: pa.Table, at: Int64, *, cutoff: bool = True
) -> WindowColumns:
    """Evaluate a WindowView for label rows in any order, over source rows of which any may be of other keys.

    Args:
        view: What to evaluate.
        table: Source rows: the columns of `with_times`.
        keys: The label rows' keys, its entity's key columns; they may repeat, be unknown, or null.
        at: int64[n], their times, UTC microseconds.
        cutoff: Whether an event counts only once it is known.
    """
    index = KeyIndex.of(keys)
    owner = index.number(key_columns(table, view.entity.keys, view.entity), table.num_rows)
    events = events_by(view, table.filter(pa.array(owner >= 0)), owner[owner >= 0])
    return view_columns(view, events, index.labels(len(at)), at, cutoff=cutoff)


def row_columns(
    view: RowView, pieces: Sequence[Piece], keys: pa.Table, at: Int64, *, cutoff: bool = True
) -> RowColumns:
    """Evaluate a RowView for label rows in any order; keys (its entity's key columns) may repeat, be unknown, or null.

    Keys and times of all pieces are read first, the view's columns afterwards and only where rows won, so that memory
    follows the label rows and the largest piece, not the source.
    """
    found, offsets = _walk(view, pieces, keys, at, cutoff=cutoff, ttl=view.ttl)
    return RowColumns(table=gather(view.columns, pieces, found.row, offsets), status=found.status)


def newest_rows(
    view: RowView, pieces: Sequence[Piece], keys: pa.Table, at: Int64, columns: Sequence[str], *, cutoff: bool = True
) -> pa.Table:
    """Return the source rows that a RowView's label rows rest on, however old, without label rows that have none."""
    found, offsets = _walk(view, pieces, keys, at, cutoff=cutoff, ttl=None)
    return gather(columns, pieces, found.row[found.row >= 0], offsets)


def _walk(
    view: RowView, pieces: Sequence[Piece], keys: pa.Table, at: Int64, *, cutoff: bool, ttl: int | None
) -> tuple[Found, list[int]]:
    """Return the newest source row of each label row, and the number of the first row of each piece, and of all."""
    index = KeyIndex.of(keys)
    labels = group(index.labels(len(at)), at, len(index))
    textual = view.source.columns[view.source.id] == "string"

    def walk(*, with_ids: bool) -> tuple[Found, list[int], int]:
        asof, offsets, ties = AsOf(labels, cutoff=cutoff), [0], 0
        for piece in pieces:
            id_column = [view.source.id] if with_ids else []
            table = piece(list(dict.fromkeys([*view.entity.keys, EVENT_TIME, KNOWN_TIME, *id_column])))
            ids = event_ids(np.asarray(table[view.source.id].to_numpy())) if with_ids else None
            ties += asof.add(
                index.number(key_columns(table, view.entity.keys, view.entity), table.num_rows),
                times(table, EVENT_TIME),
                times(table, KNOWN_TIME, otherwise=EVENT_TIME),
                ids,
                first=offsets[-1],
            )
            offsets.append(offsets[-1] + table.num_rows)
        return asof.found(ttl), offsets, ties

    found, offsets, ties = walk(with_ids=not textual)
    if textual and ties:  # identities of text are dear, and decide only between ties
        found, offsets, _ = walk(with_ids=True)
    return found, offsets


def gather(columns: Sequence[str], pieces: Sequence[Piece], row: Int64, offsets: Sequence[int]) -> pa.Table:
    """Return the columns of numbered source rows, null for −1; pieces without a wanted row are not read.

    Args:
        columns: What to read.
        pieces: The source, at least one.
        row: int64[n], numbers of rows.
        offsets: Number of the first row of each piece, and of all rows.
    """
    tables, places = [], []
    for piece, (begin, end) in zip(pieces, itertools.pairwise(offsets), strict=True):
        at = np.flatnonzero((row >= begin) & (row < end))
        if len(at) or piece is pieces[-1]:
            tables.append(piece(columns).combine_chunks().take(pa.array(row[at] - begin)))
            places.append(at)
    return in_place(tables[-1].schema, tables, places, len(row))


def in_place(schema: pa.Schema, tables: Sequence[pa.Table], places: Sequence[Int64], n: int) -> pa.Table:
    """Return n rows of which those at `places[i]` are the rows of `tables[i]`, and null where no table has one."""
    covered = sum(map(len, places)) == n
    place: pa.Array | None = None
    columns = []
    for number, field in enumerate(schema):
        parts = [whole(table.column(number)) for table in tables]
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            if place is None:
                inverse = np.full(n, -1, np.int64)
                if len(places):
                    inverse[np.concatenate(places)] = np.arange(sum(map(len, places)))
                place = pa.array(inverse, mask=inverse < 0)
            columns.append(pa.concat_arrays([pa.array([], field.type), *parts]).take(place))
            continue
        values = np.zeros(n, field.type.to_pandas_dtype())
        missing = np.full(n, not covered)
        for rows, part in zip(places, parts, strict=True):
            values[rows] = part.fill_null(0).to_numpy() if part.null_count else part.to_numpy()
            if part.null_count:
                missing[rows] = part.is_null().to_numpy(zero_copy_only=False)
            elif not covered:
                missing[rows] = False
        columns.append(pa.array(values, mask=missing) if missing.any() else pa.array(values))
    return pa.table(columns, schema=schema)


def _find(column: pa.Array, known: pa.Array) -> Int64:
    """Return the position of each value among distinct known ones, −1: absent or null."""
    if column.type != known.type:
        raise InvalidValue("key", f"{column.type} values where {known.type} is expected")
    if pa.types.is_integer(column.type) and column.null_count == 0 and len(known):
        values = column.to_numpy().astype(np.int64, copy=False)
        numbers = known.to_numpy().astype(np.int64, copy=False)
        low = int(numbers.min())
        span = int(numbers.max()) - low + 1
        if span <= _DENSE:
            table = np.full(span + 1, -1, np.int64)
            table[numbers - low] = np.arange(len(numbers))
            # what lies outside falls on the last entry; the subtraction may wrap, which is outside as well
            shifted = (values - low).view(np.uint64)
            numbered: Int64 = table[np.minimum(shifted, span).view(np.int64)]
            return numbered
    return _numbers(pc.index_in(column, value_set=known))


def _paired(code: Int64, part: Int64, parts: int) -> Int64:
    return np.where((code >= 0) & (part >= 0), code * parts + part, -1)


def _numbers(indices: pa.Array) -> Int64:
    return np.asarray(pc.fill_null(indices, -1).to_numpy(zero_copy_only=False), np.int64)
