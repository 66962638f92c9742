"""A piece of a join: some label rows of one view, the source rows that they may need, and how a task evaluates them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Int64
from headway.features.arrow import events_by, key_columns, needed
from headway.features.definitions import Entity, RowView, View, WindowView
from headway.features.lake import bucket_of
from headway.features.point_in_time import KeyIndex, Piece, row_columns, view_columns
from headway.features.reader import read_files

Range = tuple[int, int]
"""Half-open range of event times, UTC microseconds."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Some label rows of one bucket of one view: everything a task needs, by value."""

    view: View
    schema: pa.Schema
    paths: tuple[str, ...]
    """The bucket's files; empty where its rows come from an exchange."""
    keys: pa.Table
    """The label rows' key columns, named as those of the view's entity."""
    at: Int64
    cutoff: bool
    event_time: Range | None
    """Half-open range of the source rows that these label rows may need; None: all."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Files of a source that is bucketed by no column of the view's key."""

    view: View
    schema: pa.Schema
    paths: tuple[str, ...]


def split(item: Exchange) -> Any:
    """Return a table per bucket of `bucket_column`, as a tuple where there are several buckets."""
    table = read_files(item.schema, item.paths, columns_of(item.view))
    keys = key_table(table, item.view.entity.keys, item.view.entity)
    buckets = item.view.source.buckets
    bucket = bucket_of(keys[bucket_column(item.view)].combine_chunks(), buckets)
    parts = tuple(table.filter(pa.array(bucket == number)) for number in range(buckets))
    return parts[0] if buckets == 1 else parts


def evaluate(work: Work, *parts: pa.Table) -> pa.Table:
    """Return one column per feature of the view."""
    view = work.view
    if isinstance(view, RowView):
        pieces = [_inside(part, work.event_time) for part in parts] or [_file(work, path) for path in work.paths]
        return row_columns(view, pieces or [_file(work, None)], work.keys.columns, work.at, cutoff=work.cutoff).table
    if parts:
        table = pa.concat_tables(_inside(part, work.event_time)(columns_of(view)) for part in parts)
    else:
        table = read_files(work.schema, work.paths, columns_of(view), event_time=work.event_time)
    index = KeyIndex.of(work.keys)
    owner = index.number(key_columns(table, view.entity.keys, view.entity), table.num_rows)
    events = events_by(view, table.filter(pa.array(owner >= 0)), owner[owner >= 0])
    found = view_columns(view, events, index.labels(len(work.at)), work.at, cutoff=work.cutoff)
    return pa.table({name: found.columns[name] for name in view.features})


def _file(work: Work, path: str | None) -> Piece:
    paths = () if path is None else (path,)
    return lambda columns: read_files(work.schema, paths, columns, event_time=work.event_time)


def _inside(part: pa.Table, event_time: Range | None) -> Piece:
    if event_time is not None:
        at = part[EVENT_TIME].to_numpy()
        part = part.filter(pa.array((at >= event_time[0]) & (at < event_time[1])))
    piece: Piece = part.select
    return piece


def columns_of(view: View) -> list[str]:
    """Return the columns of the source that an evaluation of the view reads."""
    if isinstance(view, WindowView):
        return list(dict.fromkeys([*needed(view), EVENT_TIME, KNOWN_TIME]))
    return list(dict.fromkeys([*view.entity.keys, view.source.id, *view.columns, EVENT_TIME, KNOWN_TIME]))


def bucket_column(view: View) -> str:
    """Return the key column by whose hash rows are cut: the one that the source is bucketed by, or the first."""
    own = view.source.bucket_by
    return own if own in view.entity.keys else view.entity.keys[0]


def key_table(table: pa.Table, columns: Sequence[str], entity: Entity) -> pa.Table:
    """Return columns as the entity's key, in its names and types."""
    return pa.table(dict(zip(entity.keys, key_columns(table, columns, entity), strict=True)))
