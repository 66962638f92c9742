"""The lake: Apache Iceberg tables, bucketed by key, and the spool files that carry batches to their one committer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headway.core.errors import CorruptState, DefinitionError, NotFound
from headway.core.settings import Settings
from headway.core.times import EVENT_TIME, INGESTED_AT, KNOWN_TIME
from headway.core.types import Int64
from headway.features.definitions import DTYPES, EventSource
from headway.features.lake_faults import lake_faults

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

PURPOSES = "headway.purposes"
_PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    "write.parquet.row-group-limit": str(1 << 17),
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "commit.retry.num-retries": "0",
}
"""How tables are written. A conflict is not tried again below us: another writer may have committed the same batch."""
_TIME_COLUMNS = (EVENT_TIME, KNOWN_TIME, INGESTED_AT)
_ARROW = {
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


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
    """Whether columns that are new here are added to an existing table and those that are gone stay in it, null in rows
    without them; a column never changes its type. For logs, whose columns follow a definition that teams change."""

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

    try:
        return catalog.load_table(name)
    except (NoSuchTableError, NoSuchNamespaceError):
        raise NotFound("lake table", name, known=table_names(catalog)) from None


def ensure_table(catalog: Catalog, spec: TableSpec) -> Table:
    """Return the table, created if it is new, with columns added if it evolves.

    Raises DefinitionError where an existing one has other columns, or another type in a column.
    """
    from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
    from pyiceberg.transforms import BucketTransform

    catalog.create_namespace_if_not_exists(spec.name.split(".")[0])
    schema = _schema(spec)
    try:
        table = catalog.load_table(spec.name)
    except NoSuchTableError:
        partition = UNPARTITIONED_PARTITION_SPEC
        if spec.bucket_by is not None:
            source = schema.find_field(spec.bucket_by).field_id
            partition = PartitionSpec(
                PartitionField(source_id=source, field_id=1000, transform=BucketTransform(spec.buckets), name="bucket")
            )
        properties = {PURPOSES: ",".join(spec.purposes), **_PROPERTIES}
        try:
            return catalog.create_table(spec.name, schema=schema, partition_spec=partition, properties=properties)
        except TableAlreadyExistsError:
            table = catalog.load_table(spec.name)
    found = {field.name: str(field.field_type) for field in table.schema().fields}
    wanted = {field.name: str(field.field_type) for field in schema.fields}
    if not spec.evolves and found != wanted:
        raise DefinitionError(
            f"the lake table has other columns: {found}", field=spec.name, expected=f"{wanted}; or use another name"
        )
    for name, kind in found.items():
        if wanted.get(name, kind) != kind:
            raise DefinitionError(
                f"{wanted[name]} cannot go into a lake column of {kind}",
                field=f"{spec.name}.{name}",
                expected=f"{kind}; or use another column name",
            )
    added = [field for field in schema.fields if field.name not in found]
    if added:
        with table.update_schema() as update:
            for field in added:
                update.add_column((field.name,), field.field_type)
    if not _PROPERTIES.items() <= table.properties.items():
        with table.transaction() as change:
            change.set_properties(_PROPERTIES)
    return table


def conform_table(spec: TableSpec, data: pa.Table, ingested_at: int) -> pa.Table:
    """Return the data in the table's columns and types; event_time stands in for a missing known_time.

    A missing column of a table that evolves is null; DefinitionError names that of any other.
    """
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name, dtype in {**spec.columns, EVENT_TIME: "timestamp", KNOWN_TIME: "timestamp"}.items():
        source = EVENT_TIME if name == KNOWN_TIME and name not in data.column_names else name
        if source not in data.column_names:
            if spec.evolves and name in spec.columns:
                columns[name] = pa.nulls(data.num_rows, _ARROW[dtype])
                continue
            raise DefinitionError("a batch without this column", field=f"{spec.name}.{name}", expected=dtype)
        columns[name] = _to_lake(data[source], _ARROW[dtype])
    columns[INGESTED_AT] = pa.repeat(pa.scalar(ingested_at, pa.int64()), data.num_rows).cast(_ARROW["timestamp"])
    return pa.table(columns)


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
    return pa.scalar(microseconds, pa.int64()).cast(_ARROW["timestamp"])


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


def _to_lake(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    safe = not pa.types.is_floating(column.type) and not pa.types.is_timestamp(column.type)
    return column if column.type == wanted else column.cast(wanted, safe=safe)


def _schema(spec: TableSpec) -> Schema:
    from pyiceberg.schema import Schema
    from pyiceberg.types import (
        BooleanType,
        DoubleType,
        FloatType,
        LongType,
        NestedField,
        PrimitiveType,
        StringType,
        TimestamptzType,
    )

    types: dict[str, PrimitiveType] = {
        "int64": LongType(),
        "float32": FloatType(),
        "float64": DoubleType(),
        "string": StringType(),
        "bool": BooleanType(),
        "timestamp": TimestamptzType(),
    }
    columns = [*spec.columns.items(), *((name, "timestamp") for name in _TIME_COLUMNS)]
    return Schema(
        *(
            NestedField(field_id=number, name=name, field_type=types[dtype], required=False)
            for number, (name, dtype) in enumerate(columns, start=1)
        )
    )
