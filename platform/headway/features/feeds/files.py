"""Parquet and CSV files as feeds: read in order, from the row after the last that the stream has.

A file that changed since is read anew; the repeated events are the same events.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from headway.core.errors import InvalidValue
from headway.features.arrow import cast
from headway.features.feeds.chunk import CHUNK_ROWS, Chunk, Feed
from headway.features.feeds.columns import Columns, plain, written

_LONGEST_FIELD = 1 << 20


class FilePosition(msgspec.Struct, frozen=True, kw_only=True):
    """How far a file is, and which file that was."""

    size: int
    modified: int
    """Nanoseconds."""
    rows: int
    """Rows or lines before this are in the stream."""
    offset: int = 0
    """The same in bytes, where lines are read."""


def feeds_of(paths: Sequence[Path], columns: Columns) -> list[Feed]:
    """Return a feed per file, those of a folder in the order of their names; InvalidValue where there is none."""
    return [
        ParquetFeed(path, columns) if path.suffix == ".parquet" else CsvFeed(path, columns)
        for path in find(paths, (".parquet", ".csv"))
    ]


def find(paths: Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Return files as given, and those of folders by suffix and name; hidden ones and parts of them are left out."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(item for item in path.rglob("*") if item.suffix in suffixes and item.is_file())
        some = [item for item in inside if not any(part[0] in "._" for part in item.relative_to(path).parts)]
        if path.is_dir() and not some:
            raise InvalidValue(str(path), f"the folder has no file {' or '.join('*' + suffix for suffix in suffixes)}")
        if not path.is_dir() and (not path.is_file() or path.suffix not in suffixes):
            raise InvalidValue(str(path), f"no file {' or '.join('*' + suffix for suffix in suffixes)}")
        found += some or [path]
    return found


class FileFeed:
    """What files have in common."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.name = f"file:{self.path}"
        self.ignored: list[str] = []

    def start(self, position: bytes | None) -> tuple[FilePosition, int]:
        """Return the position at the file's beginning, and how many rows of it are in the stream."""
        found = self.path.stat()
        begin = FilePosition(size=found.st_size, modified=found.st_mtime_ns, rows=0)
        if position is None:
            return begin, 0
        left = msgspec.json.decode(position, type=FilePosition)
        same = (left.size, left.modified) == (begin.size, begin.modified)
        return begin, left.rows if same else 0


def encoded(begin: FilePosition, rows: int, offset: int = 0) -> bytes:
    """Return a position further on."""
    return msgspec.json.encode(msgspec.structs.replace(begin, rows=rows, offset=offset))


class CsvFeed(FileFeed):
    """A CSV file with a header, UTF-8; an empty field is a missing value."""

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path)
        self._columns = columns

    def chunks(self, position: bytes | None) -> Iterator[Chunk]:
        """Read from a position on."""
        begin, rows = self.start(position)
        csv.field_size_limit(_LONGEST_FIELD)
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, strict=True)
            try:
                header = next(lines, None)
            except csv.Error as error:
                raise InvalidValue(str(self.path), f"the header cannot be read: {error}") from None
            if header is None:
                raise InvalidValue(str(self.path), "the file is empty", hint="the first line names the columns")
            wanted = self._columns.find(header, str(self.path))
            self.ignored = self._columns.ignored(header)
            for _ in islice(_rows(lines), rows):
                pass
            chunk = self._chunk(begin, rows)
            for cells in _rows(lines):
                rows += 1
                self._take(chunk, rows, cells, len(header), wanted)
                if chunk.full:
                    chunk.position = encoded(begin, rows)
                    yield chunk
                    chunk = self._chunk(begin, rows)
            if chunk.read:
                chunk.position = encoded(begin, rows)
                yield chunk

    def _chunk(self, begin: FilePosition, rows: int) -> Chunk:
        return Chunk(position=encoded(begin, rows), label=f"{self.path.name} row")

    def _take(
        self, chunk: Chunk, number: int, cells: list[str] | str, width: int, wanted: list[tuple[int, str, str]]
    ) -> None:
        if isinstance(cells, str):
            chunk.refuse(number, b"", cells)
        elif len(cells) != width:
            chunk.refuse(number, _text(cells), f"{len(cells)} values where the header has {width}")
        else:
            row = {name: written(cells[place], dtype) for place, name, dtype in wanted}
            try:
                chunk.add(number, self._columns.encode(row))
            except ValueError as error:
                chunk.refuse(number, _text(cells), str(error))


def _rows(lines: Any) -> Iterator[list[str] | str]:
    """Return the rows that are not empty; a text says why one cannot be read."""
    while True:
        try:
            cells: list[str] = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield str(error)
        else:
            if cells:
                yield cells


def _text(cells: list[str]) -> bytes:
    return ",".join(cells).encode(errors="surrogateescape")


class ParquetFeed(FileFeed):
    """A Parquet file; at most a row group of it is in memory."""

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path)
        self._columns = columns

    def chunks(self, position: bytes | None) -> Iterator[Chunk]:
        """Read from a position on."""
        import pyarrow.parquet as pq

        begin, done = self.start(position)
        try:
            with pq.ParquetFile(self.path) as file:
                names = file.schema_arrow.names
                wanted = self._columns.find(names, str(self.path))
                self.ignored = self._columns.ignored(names)
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
                first = skipped = 0
                while first < len(sizes) and skipped + sizes[first] <= done:
                    skipped += sizes[first]
                    first += 1
                rows = skipped
                read = [names[place] for place, _, _ in wanted]
                groups = list(range(first, len(sizes)))
                for batch in file.iter_batches(CHUNK_ROWS, row_groups=groups, columns=read, use_threads=False):
                    fresh = batch.slice(min(batch.num_rows, max(0, done - rows)))
                    rows += batch.num_rows
                    if fresh.num_rows:
                        number = rows - fresh.num_rows + 1
                        yield self._chunk(encoded(begin, rows), number, fresh, dict(zip(read, wanted, strict=True)))
        except pa.ArrowException as error:
            raise InvalidValue(str(self.path), f"the file cannot be read: {error}", hint="is it Parquet?") from None

    def _chunk(
        self, position: bytes, number: int, batch: pa.RecordBatch, wanted: dict[str, tuple[int, str, str]]
    ) -> Chunk:
        chunk = Chunk(position=position, label=f"{self.path.name} row")
        kinds = [wanted[name][1:] for name in batch.schema.names]
        values = [
            _values(column, dtype, f"{self.path}: {name}")
            for column, (name, dtype) in zip(batch.columns, kinds, strict=True)
        ]
        for offset, cells in enumerate(zip(*values, strict=True)):
            try:
                row = {name: plain(value, dtype, name) for value, (name, dtype) in zip(cells, kinds, strict=True)}
                chunk.add(number + offset, self._columns.encode(row))
            except ValueError as error:
                chunk.refuse(number + offset, b"", str(error))
        return chunk


def _values(column: pa.Array, dtype: str, name: str) -> list[Any]:
    """Return a column as Python values; times as microseconds."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if dtype == "timestamp" and pa.types.is_timestamp(column.type):
        column = cast(pa.chunked_array([column]), "timestamp", name)
    try:
        values: list[Any] = column.to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise InvalidValue(name, f"{column.type} values where {dtype} is declared: {error}") from None
    return values
