"""The lake: Apache Iceberg tables, bucketed by key, and the spool files that carry batches to their one committer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headway.core.errors import CorruptState, DefinitionError, NotFound
from headway.core.settings import Settings
from headway.core.types import Int64
from headway.features.definitions import DTYPES, EventSource
from headway.features.lake.faults import lake_faults

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

PURPOSES = "headway.purposes"


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a lake is; plain text, so that tasks and actors can be told."""

    catalog_uri: str
    warehouse: str

    @classmethod
    def of(cls, settings: Settings) -> Location:
        """Return the lake of an installation: embedded in `home` unless settings name another."""
        folder = settings.home.resolve() / "lake"
        return cls(
            catalog_uri=settings.catalog_uri or f"sqlite:///{folder}/catalog.db",
            warehouse=settings.warehouse or f"file://{folder}/warehouse",
        )


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A lake table that is not an event source: decisions, outcomes, scores. The time columns are implied."""

    name: str
    """`<namespace>.<table>`."""
    columns: Mapping[str, str]
    """Column → dtype, without event_time, known_time, ingested_at."""
    bucket_by: str | None = None
    buckets: int = 8
    purposes: tuple[str, ...] = ()
    """Purposes for which it may be read; empty: none."""
    evolves: bool = False
    """Whether columns may also go: they stay in the table, null in rows without them. For logs, whose columns follow a
    definition that teams change."""

    def __post_init__(self) -> None:
        """Refuse dtypes and bucket columns that do not exist."""
        for column, dtype in self.columns.items():
            if dtype not in DTYPES:
                raise DefinitionError(
                    f"unknown dtype {dtype!r}", field=f"{self.name}.{column}", expected=", ".join(DTYPES)
                )
        if self.bucket_by is not None and self.bucket_by not in self.columns:
            raise DefinitionError(
                f"no column {self.bucket_by!r}", field=f"{self.name}.bucket_by", expected=", ".join(self.columns)
            )


def spec_of(table: EventSource | TableSpec) -> TableSpec:
    """Return the table of a source."""
    if isinstance(table, TableSpec):
        return table
    return TableSpec(
        name=table.table,
        columns=table.columns,
        bucket_by=table.bucket_by,
        buckets=table.buckets,
        purposes=table.purposes,
    )


def open_catalog(location: Location) -> Catalog:
    """Return the catalog: SQLite with its folders made, or REST."""
    uri = location.catalog_uri
    if uri.startswith(("http://", "https://")):
        from pyiceberg.catalog.rest import RestCatalog

        return RestCatalog("headway", uri=uri, warehouse=location.warehouse)
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy.exc import OperationalError

    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    if location.warehouse.startswith("file://"):
        Path(location.warehouse.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
    while True:
        try:
            return SqlCatalog("headway", uri=uri, warehouse=location.warehouse)
        except OperationalError as error:
            if "already exists" not in str(error.orig):  # another process makes the new catalog's tables just now
                raise


def table_names(catalog: Catalog) -> list[str]:
    """Return the names of all tables in order."""
    return sorted(".".join(table) for space in catalog.list_namespaces() for table in catalog.list_tables(space))


def open_table(catalog: Catalog, name: str) -> Table:
    """Return an existing table; NotFound lists those there are."""
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    with suppress(NoSuchTableError, NoSuchNamespaceError):
        if "." in name:
            return catalog.load_table(name)
    raise NotFound("lake table", name, known=table_names(catalog))


def from_lake(data: pa.Table) -> pa.Table:
    """Return the table with timestamps as int64 UTC microseconds: the form everything in memory has."""
    for position, field in enumerate(data.schema):
        if pa.types.is_timestamp(field.type):
            data = data.set_column(position, field.name, data.column(position).cast(pa.int64()))
    return data


def file_schema(schema: pa.Schema) -> pa.Schema:
    """Return a table's schema as its data files are read: strings with 32-bit offsets, as everywhere in memory."""
    small = [pa.string() if pa.types.is_large_string(field.type) else field.type for field in schema]
    return pa.schema(list(zip(schema.names, small, strict=True)))


def moment(microseconds: int) -> pa.Scalar:
    """Return UTC microseconds as a value to compare a data file's times with."""
    return pa.scalar(microseconds, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def bucket_of(keys: pa.Array, buckets: int) -> Int64:
    """Return Iceberg's bucket number of each key (−1: null), int64[n]."""
    import pyarrow.compute as pc
    from pyiceberg_core.transform import bucket

    found = pc.fill_null(bucket(keys, buckets).cast(pa.int64()), -1)
    numbers: Int64 = found.to_numpy(zero_copy_only=False)
    return numbers


def write_spool(folder: Path, batch_id: str, data: pa.Table) -> Path:
    """Write a batch durably for the committer and return its path; the name is the batch id."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{batch_id}.arrow"
    partial = path.with_suffix(".partial")
    try:
        with lake_faults(f"spool {path.name}"):
            with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, data.schema) as writer:
                writer.write_table(data)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_spool(path: Path) -> pa.Table:
    """Return a spooled batch; CorruptState where the file is not one."""
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise CorruptState(
            f"the spool file {path.name} cannot be read: {error}", hint="keep it and look at it"
        ) from None


def batch_list(ids: Iterable[str]) -> str:
    """Return batch ids as one snapshot property."""
    return ",".join(ids)
