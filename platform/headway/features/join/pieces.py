"""Sources in pieces of bounded size, so that the memory of a task follows a piece and never a file or a bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Int64
from headway.features.arrow import times
from headway.features.join.point_in_time import Piece
from headway.features.lake.tables import file_schema, from_lake, moment

PIECE_ROWS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Span:
    """A half-open range of time: of source rows' event_time, or of the moment from which they count."""

    begin: int
    """UTC microseconds."""
    end: int
    known: bool = False
    """Whether a row counts from the later of event_time and known_time on, not from event_time."""

    def expression(self) -> pc.Expression:
        """Return the condition for files."""
        event, known = pc.field(EVENT_TIME), pc.field(KNOWN_TIME)
        begin, end = moment(self.begin), moment(self.end)
        if not self.known:
            return (event >= begin) & (event < end)
        return (event < end) & (known < end) & ((event >= begin) | (known >= begin))

    def rows(self, table: pa.Table) -> pa.Table:
        """Return the rows inside."""
        at: Int64 = times(table, EVENT_TIME)
        if self.known:
            at = pc.max_element_wise(pa.array(at), pa.array(times(table, KNOWN_TIME))).to_numpy()
        return table.filter(pa.array((at >= self.begin) & (at < self.end)))


def file_pieces(schema: pa.Schema, paths: Sequence[str], span: Span | None = None) -> list[Piece]:
    """Return the rows of lake files, times as int64: row groups of `PIECE_ROWS` rows together, or one alone.

    Row groups that by their statistics have no row of the span are left out; without any, one piece has no rows.
    """
    plain = file_schema(schema)
    where = None if span is None else span.expression()

    def piece(data: Any) -> Piece:
        return lambda names: from_lake(data.to_table(columns=list(names), filter=where))

    found = [piece(data) for data in _datasets(plain, paths, where)]
    return found or [lambda names: from_lake(pa.schema([plain.field(name) for name in names]).empty_table())]


def table_pieces(parts: Sequence[Any], span: Span | None = None) -> list[Piece]:
    """Return exchanged tables, each fetched when it is asked for, and not kept."""

    def piece(part: Any) -> Piece:
        def read(names: Sequence[str]) -> pa.Table:
            table = _held(part)
            return (table if span is None else span.rows(table)).select(list(names))

        return read

    return [piece(part) for part in parts]


def _datasets(plain: pa.Schema, paths: Sequence[str], where: pc.Expression | None) -> Iterator[pads.Dataset]:
    if not paths:
        return
    system, _ = pafs.FileSystem.from_uri(paths[0])
    inside = [pafs.FileSystem.from_uri(path)[1] for path in paths]
    whole = pads.dataset(inside, schema=plain, filesystem=system, format="parquet")
    groups: list[Any] = []
    rows = 0
    for fragment in whole.get_fragments():
        for group in fragment.split_by_row_group(filter=where, schema=plain):
            size = group.row_groups[0].num_rows
            if groups and rows + size > PIECE_ROWS:
                yield pads.FileSystemDataset(groups, plain, whole.format, system)
                groups, rows = [], 0
            groups.append(group)
            rows += size
    if groups:
        yield pads.FileSystemDataset(groups, plain, whole.format, system)


def _held(part: Any) -> pa.Table:
    """Return a table, from the object store where it is a reference."""
    if isinstance(part, pa.Table):
        return part
    import ray

    table: pa.Table = ray.get(part)
    return table
