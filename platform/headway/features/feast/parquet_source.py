"""Parquet files as a source of rows: what is in them, where to cut them, and how their keys and times compare."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import FileSource

from headway.core.errors import InvalidValue, NotFound
from headway.core.types import Int64
from headway.features.join.as_of import NONE

_FACTOR = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
FARTHEST = 2**62 - 1
"""Times are kept within ± this, so that their differences fit 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Row groups of one file."""

    path: str
    filesystem: pafs.FileSystem
    row_groups: tuple[int, ...]
    rows: int
    schema: pa.Schema

    def read(self, columns: Sequence[str], *, threads: bool = False) -> pa.Table:
        """Return some columns, in the types of the whole source."""
        fragment = pads.ParquetFileFormat().make_fragment(
            self.path, filesystem=self.filesystem, row_groups=self.row_groups
        )
        table = fragment.to_table(schema=self.schema, columns=list(dict.fromkeys(columns)), use_threads=threads)
        return table.select(list(columns))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A Parquet file or folder, or the folder of an Iceberg table at its latest metadata."""

    name: str
    schema: pa.Schema
    fragments: tuple[tuple[str, pq.FileMetaData], ...]
    filesystem: pafs.FileSystem
    iceberg: bool

    @classmethod
    def open(cls, config: Any, source: Any, field: str) -> Source:
        """Read schema and row counts; NotFound where nothing is there, InvalidValue for other kinds of source."""
        if not isinstance(source, FileSource):
            raise InvalidValue(
                field, f"{type(source).__name__} is no FileSource", hint="this store reads Parquet files"
            )
        filesystem, path = target(config, source.file_options.uri, source.file_options.s3_endpoint_override)
        if filesystem.get_file_info(path).type == pafs.FileType.NotFound:
            raise NotFound("file or folder", path, field=field)
        files = iceberg_files(path) if isinstance(filesystem, pafs.LocalFileSystem) else None
        try:
            data = pads.dataset(path if files is None else files, filesystem=filesystem, format="parquet")
            found = list(data.get_fragments())
            schema = pa.unify_schemas([f.physical_schema for f in found], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InvalidValue(field, f"{path} cannot be read as Parquet: {error}") from None
        return cls(
            name=field,
            schema=schema if found else data.schema,
            fragments=tuple((f.path, f.metadata) for f in found),
            filesystem=filesystem,
            iceberg=files is not None,
        )

    def column(self, name: str, mapping: Mapping[str, str]) -> str:
        """Return the name of a column in the files; InvalidValue where there is none."""
        stored = {new: old for old, new in mapping.items()}.get(name, name)
        for candidate in (stored, name):
            if candidate in self.schema.names:
                return candidate
        raise InvalidValue(self.name, f"no column {stored!r}", hint=f"there are {', '.join(self.schema.names)}")

    def splits(self, columns: Sequence[str], size: int) -> tuple[list[Split], int]:
        """Return pieces of about `size` bytes in file order (at least one), and the bytes of all."""
        made: list[Split] = []
        total = 0
        for path, metadata in self.fragments:
            groups: list[int] = []
            volume = rows = 0
            for number in range(metadata.num_row_groups):
                row_group = metadata.row_group(number)
                parts = [row_group.column(i) for i in range(row_group.num_columns)]
                volume += sum(p.total_uncompressed_size for p in parts if p.path_in_schema.split(".")[0] in columns)
                groups.append(number)
                rows += row_group.num_rows
                if volume >= size or number == metadata.num_row_groups - 1:
                    made.append(self._split(path, groups, rows))
                    total += volume
                    groups, volume, rows = [], 0, 0
        if not made and self.fragments:
            made.append(self._split(self.fragments[0][0], [], 0))
        return made, total

    def _split(self, path: str, groups: list[int], rows: int) -> Split:
        schema, filesystem = self.schema, self.filesystem
        return Split(path=path, filesystem=filesystem, row_groups=tuple(groups), rows=rows, schema=schema)


@dataclass(frozen=True, kw_only=True)
class Deciding:
    """Which columns decide, and how their values compare."""

    keys: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    """Types that label keys and source keys are compared in."""
    event: str
    created: str | None
    unit: str
    """us, or ns where any time involved has nanoseconds."""

    @classmethod
    def of(
        cls, source: Source, keys: Sequence[str], event: str, created: str | None, *, times: pa.DataType | None = None
    ) -> Deciding:
        """Take names in the files; `times` is the type of the times that rows are held against."""
        kinds = [source.schema.field(name).type for name in (event, created) if name]
        fine = any(pa.types.is_timestamp(kind) and kind.unit == "ns" for kind in (*kinds, times) if kind is not None)
        return cls(
            keys=tuple(keys),
            types=tuple(comparable(source.schema.field(name).type) for name in keys),
            event=event,
            created=created or None,
            unit="ns" if fine else "us",
        )

    @property
    def columns(self) -> list[str]:
        """Names in the files, each once."""
        return list(dict.fromkeys([*self.keys, self.event, *([] if self.created is None else [self.created])]))

    def key_columns(self, table: pa.Table) -> list[pa.ChunkedArray]:
        """Return the keys of source rows."""
        return [table[name].cast(kind) for name, kind in zip(self.keys, self.types, strict=True)]

    def times(self, table: pa.Table) -> tuple[Int64, Int64 | None]:
        """Return event and created times, `NONE` for null."""
        created = None if self.created is None else moments(table[self.created], self.unit, self.created)
        return moments(table[self.event], self.unit, self.event), created


def moments(column: pa.ChunkedArray, unit: str, field: str) -> Int64:
    """Return times as int64 in `us` or `ns` since 1970, `NONE` for null; naive times and texts are UTC."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_date(column.type):
        try:
            try:
                column = column.cast(pa.timestamp("us", "UTC"))
            except pa.ArrowInvalid:
                column = column.cast(pa.timestamp("us"))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidValue(field, f"values that are no times: {error}") from None
    if not pa.types.is_timestamp(column.type):
        raise InvalidValue(field, f"{column.type} values where times are expected", hint="timestamp, date or RFC 3339")
    missing = np.asarray(column.is_null().to_numpy()) if column.null_count else None
    values = np.asarray(column.cast(pa.int64()).fill_null(0).to_numpy(), np.int64)
    have, want = _FACTOR[column.type.unit], _FACTOR[unit]
    if have >= want:
        ratio = have // want
        values = np.clip(values, -(FARTHEST // ratio), FARTHEST // ratio) * ratio
    else:
        values = values // (want // have)
    if missing is not None:
        values[missing] = NONE
    return values


def comparable(kind: pa.DataType) -> pa.DataType:
    """Return the type in which keys are compared: int64 for integers, string for texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def iceberg_files(path: str) -> list[str] | None:
    """Return the data files of an Iceberg table's folder at its latest metadata, None where it is another folder."""
    versions = [(_version(file.name), str(file)) for file in Path(path, "metadata").glob("*.metadata.json")]
    if not versions:
        return None
    from pyiceberg.table import StaticTable

    tasks = list(StaticTable.from_metadata(max(versions)[1]).scan().plan_files())
    if any(task.delete_files for task in tasks):
        raise InvalidValue(path, "holds row deletes, which are not read", hint="compact it")
    return sorted(task.file.file_path.removeprefix("file://") for task in tasks)


def target(config: Any, uri: str, endpoint: str) -> tuple[pafs.FileSystem, str]:
    """Return where a path of a Feast repository is."""
    whole = FileSource.get_uri_for_file_path(repo_path=config.repo_path, uri=uri)
    filesystem, path = FileSource.create_filesystem_and_path(whole, endpoint)
    if filesystem is not None:
        return filesystem, path
    return pafs.FileSystem.from_uri(whole) if "://" in whole else (pafs.LocalFileSystem(), whole)


def write_folder(
    table: pa.Table,
    path: str,
    filesystem: pafs.FileSystem,
    *,
    partitioning: list[str] | None = None,
    replace: bool = False,
) -> None:
    """Write a table into a folder, beside what is there or instead of it; later files have greater names."""
    taken = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True)) if path else []
    pads.write_dataset(
        table,
        base_dir=path,
        basename_template=f"part-{len(taken):06}-{uuid.uuid4().hex}-{{i}}.parquet",
        partitioning=partitioning,
        filesystem=filesystem,
        format="parquet",
        existing_data_behavior="delete_matching" if replace else "overwrite_or_ignore",
    )


def _version(name: str) -> int:
    number = re.match(r"v?(\d+)", name)
    return int(number[1]) if number else -1
