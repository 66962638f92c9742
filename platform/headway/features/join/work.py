"""A piece of a join: some label rows of one view, the source rows that they may need, and how a task evaluates them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.times import EVENT_TIME
from headway.core.types import Int64
from headway.features.arrow import key_columns, with_times
from headway.features.definitions import Entity, RowView, View, WindowView
from headway.features.join.pieces import Span, file_pieces, table_pieces
from headway.features.join.point_in_time import Piece, in_place, newest_rows, row_columns, window_features
from headway.features.lake.tables import bucket_of

_EVENTS_PER_PASS = 1 << 22
_BINS = 4_096


@dataclass(frozen=True, kw_only=True)
class Work:
    """Some label rows of one bucket of one view: everything a task needs but exchanged rows, by value."""

    view: View
    schema: pa.Schema
    paths: tuple[str, ...]
    """The bucket's files; empty where its rows come from an exchange."""
    keys: pa.Table
    """The label rows' key columns, named as those of the view's entity."""
    at: Int64
    cutoff: bool
    span: Span | None
    """The source rows that these label rows may need; None: all."""

    def pieces(self, parts: Sequence[Any], span: Span | None) -> list[Piece]:
        """Return the source's rows of a span, from exchanged parts or from files."""
        return table_pieces(parts, span) if parts else file_pieces(self.schema, self.paths, span)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Files of a source that is bucketed by no column of the view's key."""

    view: View
    schema: pa.Schema
    paths: tuple[str, ...]


def split(item: Exchange) -> Iterator[pa.Table]:
    """Yield the files' rows piece by piece, each as a table per bucket of `bucket_column`."""
    entity, buckets = item.view.entity, item.view.source.buckets
    for piece in file_pieces(item.schema, item.paths):
        table = piece(with_times(item.view))
        keys = key_table(table, entity.keys, entity)
        bucket = bucket_of(keys[bucket_column(item.view)].combine_chunks(), buckets)
        for number in range(buckets):
            yield table.filter(pa.array(bucket == number))


def last_rows(work: Work, parts: Sequence[Any]) -> pa.Table:
    """Return the newest source row of each key of `work` in its span, with all columns of a RowView's evaluation."""
    view = work.view
    assert isinstance(view, RowView)
    pieces = work.pieces(parts, work.span)
    return newest_rows(view, pieces, work.keys, work.at, with_times(view), cutoff=work.cutoff)


def evaluate(work: Work, parts: Sequence[Any], carried: Sequence[Any]) -> pa.Table:
    """Return one column per feature of the view.

    Args:
        work: The label rows.
        parts: The bucket's rows, where they come from an exchange.
        carried: The last rows of earlier spans, of a RowView that is cut by time.
    """
    if isinstance(work.view, RowView):
        pieces = [*table_pieces(carried), *work.pieces(parts, work.span)]
        return row_columns(work.view, pieces, work.keys, work.at, cutoff=work.cutoff).table
    tables, places = [], []
    for rows, span in _passes(work.view, work, parts):
        columns = with_times(work.view)
        table = pa.concat_tables(piece(columns) for piece in work.pieces(parts, span))
        keys = work.keys if rows is None else work.keys.take(pa.array(rows))
        at = work.at if rows is None else work.at[rows]
        found = window_features(work.view, table, keys, at, cutoff=work.cutoff)
        tables.append(pa.table({name: found.columns[name] for name in work.view.features}))
        places.append(rows)
    if places == [None]:
        return tables[0]
    return in_place(tables[0].schema, tables, [rows for rows in places if rows is not None], len(work.at))


def _passes(view: WindowView, work: Work, parts: Sequence[Any]) -> Iterator[tuple[Int64 | None, Span | None]]:
    """Yield label rows (None: all) in the order of time, and the events to hold with them.

    The events of one pass are as many as `_EVENTS_PER_PASS`, or those of one horizon and one bin where that has more.
    """
    horizon, pieces = view.horizon, work.pieces(parts, work.span)
    if horizon is None or len(pieces) == 1:
        yield None, work.span
        return
    first, last = int(work.at.min()) - horizon, int(work.at.max()) + 1
    edges = np.linspace(first, last, _BINS + 1).astype(np.int64)
    before = np.zeros(len(edges), np.int64)
    for piece in pieces:
        before += np.searchsorted(np.sort(piece([EVENT_TIME])[EVENT_TIME].to_numpy()), edges)
    if before[-1] - before[0] <= _EVENTS_PER_PASS:
        yield None, Span(begin=first, end=last)
        return
    order = np.argsort(work.at, kind="stable")
    at = work.at[order]
    begin = 0
    while begin < len(at):
        low = int(at[begin]) - horizon
        held = before[max(0, int(np.searchsorted(edges, low, side="right")) - 1)]
        fitting = edges[int(np.searchsorted(before, held + _EVENTS_PER_PASS, side="right")) - 1]
        above = edges[min(_BINS, int(np.searchsorted(edges, at[begin], side="right")))]
        end = max(begin + 1, int(np.searchsorted(at, max(fitting, above))))
        yield order[begin:end], Span(begin=low, end=int(at[end - 1]) + 1)
        begin = end


def bucket_column(view: View) -> str:
    """Return the key column by whose hash rows are cut: the one that the source is bucketed by, or the first."""
    own = view.source.bucket_by
    return own if own in view.entity.keys else view.entity.keys[0]


def key_table(table: pa.Table, columns: Sequence[str], entity: Entity) -> pa.Table:
    """Return columns as the entity's key, in its names and types."""
    return pa.table(dict(zip(entity.keys, key_columns(table, columns, entity), strict=True)))
