"""The columns of a lake table: made from a definition, grown with it, and never anything else.

A definition may gain columns, and a column may get a wider type; rows from before are null there. Nothing else can
change: what was written under a name would mean something new, or be lost. Who still works with an earlier definition
goes on, because the table remembers all the schemas that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headway.core.errors import DefinitionError
from headway.core.times import EVENT_TIME, INGESTED_AT, KNOWN_TIME
from headway.features.definitions import EventSource
from headway.features.lake.faults import lake_faults
from headway.features.lake.tables import PURPOSES, Location, TableSpec, open_catalog, spec_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.types import PrimitiveType

PROPERTIES = {
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
_ICEBERG = {
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "string": "string",
    "bool": "boolean",
    "timestamp": "timestamptz",
}
_DTYPES = {iceberg: dtype for dtype, iceberg in _ICEBERG.items()}
_WIDER = {("int", "long"), ("float", "double")}
"""What Iceberg allows to become what, of the types that definitions have."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How a table changes so that it can take what a definition says."""

    added: dict[str, str] = field(default_factory=dict)
    """Column → dtype."""
    widened: dict[str, str] = field(default_factory=dict)


def growth(spec: TableSpec, have: Mapping[str, str], before: Sequence[Mapping[str, str]]) -> Growth:
    """Return how a table grows into a definition; DefinitionError names a column that would change otherwise.

    Args:
        spec: The definition.
        have: The table's columns without the times, Iceberg's type by name.
        before: The same of each schema that the table ever had: a definition equal to one of these is an earlier one,
            which changes nothing.
    """
    wanted = {name: _ICEBERG[dtype] for name, dtype in spec.columns.items()}
    if any(wanted == dict(schema) for schema in before):
        return Growth()
    for name, kind in have.items():
        if name not in wanted:
            if not spec.evolves:
                raise DefinitionError(
                    "the lake table has this column and the definition does not",
                    field=f"{spec.name}.{name}",
                    expected=f"{_dtype(kind)}: columns are added, never dropped or renamed; or a table of another name",
                )
        elif wanted[name] != kind and (kind, wanted[name]) not in _WIDER and not _had(spec, name, wanted, before):
            raise DefinitionError(
                f"{spec.columns[name]} cannot go into a lake column of {_dtype(kind)}",
                field=f"{spec.name}.{name}",
                expected=f"{_dtype(kind)}; or a column of another name beside it",
            )
    return Growth(
        added={name: dtype for name, dtype in spec.columns.items() if name not in have},
        widened={name: dtype for name, dtype in spec.columns.items() if (have.get(name), wanted[name]) in _WIDER},
    )


def require_growth(spec: TableSpec, table: Table) -> Growth:
    """Return how an existing table grows into a definition; DefinitionError says what cannot be."""
    from pyiceberg.transforms import BucketTransform

    grown = growth(spec, _types(table.schema()), [_types(schema) for schema in table.metadata.schemas])
    fields = table.spec().fields
    bucket = fields[0].transform if fields else None
    if isinstance(bucket, BucketTransform):
        by, count = table.schema().find_column_name(fields[0].source_id), bucket.num_buckets
        if (spec.bucket_by, spec.buckets) != (by, count):
            raise DefinitionError(
                f"{spec.buckets} buckets by {spec.bucket_by}",
                field=f"{spec.name}.bucket_by",
                expected=f"{count} by {by}, as the lake table has its files; or a table of another name",
            )
    elif spec.bucket_by is not None:
        raise DefinitionError(
            "the lake table has no buckets", field=f"{spec.name}.bucket_by", expected="none; or a table of another name"
        )
    return grown


def require_sources(location: Location, sources: Iterable[EventSource]) -> None:
    """Raise DefinitionError where a source's table in the lake cannot grow into its definition; nothing is changed."""
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    embedded = location.catalog_uri.removeprefix("sqlite:///")
    if embedded != location.catalog_uri and not Path(embedded).exists():
        return
    with lake_faults("look at the lake"):
        catalog = open_catalog(location)
        for source in sources:
            with suppress(NoSuchTableError, NoSuchNamespaceError):
                require_growth(spec_of(source), catalog.load_table(source.table))


def ensure_table(catalog: Catalog, spec: TableSpec) -> Table:
    """Return the table, created if it is new and grown if the definition has; DefinitionError for any other change."""
    from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
    from pyiceberg.transforms import BucketTransform

    _ensure_namespace(catalog, spec.name.split(".")[0])
    schema = schema_of(spec)
    try:
        table = catalog.load_table(spec.name)
    except NoSuchTableError:
        partition = UNPARTITIONED_PARTITION_SPEC
        if spec.bucket_by is not None:
            source = schema.find_field(spec.bucket_by).field_id
            partition = PartitionSpec(
                PartitionField(source_id=source, field_id=1000, transform=BucketTransform(spec.buckets), name="bucket")
            )
        properties = {PURPOSES: ",".join(spec.purposes), **PROPERTIES}
        try:
            return catalog.create_table(spec.name, schema=schema, partition_spec=partition, properties=properties)
        except TableAlreadyExistsError:
            table = catalog.load_table(spec.name)
    grown = require_growth(spec, table)
    if grown.added or grown.widened:
        with table.update_schema() as update:
            for name, dtype in grown.added.items():
                update.add_column((name,), _type(dtype))
            for name, dtype in grown.widened.items():
                update.update_column((name,), field_type=_type(dtype))
    if not PROPERTIES.items() <= table.properties.items():
        with table.transaction() as change:
            change.set_properties(PROPERTIES)
    return table


def _ensure_namespace(catalog: Catalog, name: str) -> None:
    from sqlalchemy.exc import IntegrityError

    # pyiceberg asks first and then writes: another process may have made it in between
    with suppress(IntegrityError):
        catalog.create_namespace_if_not_exists(name)


def conform_table(spec: TableSpec, data: pa.Table, ingested_at: int, schema: pa.Schema) -> pa.Table:
    """Return data of a definition in the columns and types of the table's schema, which may have grown beyond it.

    event_time stands in for a missing known_time. What the definition lacks is null; so is what the data lack where
    the table evolves, and DefinitionError names it where not.
    """
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    dtypes = {**spec.columns, EVENT_TIME: "timestamp", KNOWN_TIME: "timestamp"}
    for name, dtype in dtypes.items():
        source = EVENT_TIME if name == KNOWN_TIME and name not in data.column_names else name
        if source in data.column_names:
            columns[name] = _to_lake(_to_lake(data[source], _ARROW[dtype]), _stored(schema, name))
        elif not spec.evolves or name not in spec.columns:
            raise DefinitionError("a batch without this column", field=f"{spec.name}.{name}", expected=dtype)
    columns[INGESTED_AT] = pa.repeat(pa.scalar(ingested_at, pa.int64()), data.num_rows).cast(_ARROW["timestamp"])
    missing = {name: pa.nulls(data.num_rows, _stored(schema, name)) for name in schema.names if name not in columns}
    return pa.table({**columns, **missing}).select(schema.names)


def read_schema(schema: pa.Schema, spec: TableSpec | None) -> pa.Schema:
    """Return the schema under which a definition reads a table that has not grown into it yet: what is new is null."""
    if spec is None:
        return schema
    for name, dtype in spec.columns.items():
        place = schema.get_field_index(name)
        if place < 0:
            schema = schema.append(pa.field(name, _ARROW[dtype]))
        elif (str(schema.field(name).type), dtype) == ("float", "float64"):
            schema = schema.set(place, pa.field(name, _ARROW[dtype]))
    return schema


def _had(spec: TableSpec, name: str, wanted: Mapping[str, str], before: Sequence[Mapping[str, str]]) -> bool:
    return spec.evolves and any(schema.get(name) == wanted[name] for schema in before)


def _types(schema: Schema) -> dict[str, str]:
    return {field.name: str(field.field_type) for field in schema.fields if field.name not in _TIME_COLUMNS}


def _dtype(kind: str) -> str:
    return _DTYPES.get(kind, kind)


def _stored(schema: pa.Schema, name: str) -> pa.DataType:
    kind = schema.field(name).type
    return pa.string() if pa.types.is_large_string(kind) else kind


def _to_lake(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    safe = not pa.types.is_floating(column.type) and not pa.types.is_timestamp(column.type)
    return column if column.type == wanted else column.cast(wanted, safe=safe)


def _type(dtype: str) -> PrimitiveType:
    from pyiceberg.types import BooleanType, DoubleType, FloatType, LongType, StringType, TimestamptzType

    types: dict[str, PrimitiveType] = {
        "int64": LongType(),
        "float32": FloatType(),
        "float64": DoubleType(),
        "string": StringType(),
        "bool": BooleanType(),
        "timestamp": TimestamptzType(),
    }
    return types[dtype]


def schema_of(spec: TableSpec) -> Schema:
    """Return the schema of a new table."""
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    columns = [*spec.columns.items(), *((name, "timestamp") for name in _TIME_COLUMNS)]
    return Schema(
        *(
            NestedField(field_id=number, name=name, field_type=_type(dtype), required=False)
            for number, (name, dtype) in enumerate(columns, start=1)
        )
    )
