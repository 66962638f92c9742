"""From Arrow tables to the kernel's arrays: one conversion for lake, ingestion and training, so that all agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.errors import InvalidValue, names_near
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Int64
from headway.features.aggregates import HASHED
from headway.features.definitions import Entity, EventSource, RowView, View, WindowView
from headway.features.windows.events import Events, build_events, event_ids, make_records, scaled
from headway.features.windows.scan import FOREVER, NULL
from headway.features.windows.tiles import mixed

ARROW_TYPES = {
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.int64(),
}
"""dtype of a definition → Arrow type in memory; timestamps are int64 UTC microseconds."""


def times(table: pa.Table, name: str, *, otherwise: str | None = None) -> Int64:
    """Return a time column as int64 UTC microseconds; naive timestamps are UTC.

    `otherwise` names the column that stands in where `name` is absent. InvalidValue where a time is null or no time.
    """
    if name not in table.column_names:
        if otherwise is None:
            raise InvalidValue(name, "the table has no such column", hint="int64 microseconds or timestamp")
        return times(table, otherwise)
    column = table[name]
    if column.null_count:
        raise InvalidValue(name, f"{column.null_count} rows have no time")
    if pa.types.is_null(column.type):
        return np.empty(0, np.int64)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _written(column, name)
    if pa.types.is_timestamp(column.type):
        column = _microseconds(column, name)
    if not pa.types.is_integer(column.type):
        raise InvalidValue(name, f"{column.type} is not a time", hint="int64 microseconds or timestamp")
    return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)


def _microseconds(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return timestamps as int64 UTC microseconds, nanoseconds cut."""
    wanted = pa.timestamp("us", tz=column.type.tz)
    try:
        return column.cast(wanted, safe=column.type.unit != "ns").cast(pa.int64())
    except pa.ArrowInvalid:
        raise InvalidValue(name, f"a {column.type} does not fit int64 microseconds") from None


def _written(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return RFC 3339 text as timestamps: all with a zone or all without."""
    zoned = pc.match_substring_regex(column, r"(Z|[+-]\d\d:?\d\d)$")
    some, every = pc.any(zoned).as_py(), pc.all(zoned).as_py()
    if some and not every:
        bare, other = pc.index(zoned, value=False).as_py(), pc.index(zoned, value=True).as_py()
        raise InvalidValue(
            name,
            f"row {bare} has no time zone ({column[bare]}) and row {other} has one ({column[other]})",
            hint="write all times with a zone, or all without: then they are UTC",
        )
    try:
        return column.cast(pa.timestamp("us", tz="UTC" if every else None))
    except pa.ArrowInvalid as error:
        raise InvalidValue(name, f"not a time: {error}", hint="RFC 3339: 2018-08-08T00:00:00Z") from None


def require_unique(names: Sequence[str]) -> None:
    """Refuse a table in which a column name stands twice: nobody can tell which of them is meant."""
    for name in names:
        if names.count(name) > 1:
            raise InvalidValue(name, f"{names.count(name)} columns have this name", hint="keep one, rename the others")


def key_columns(table: pa.Table, names: Sequence[str], entity: Entity) -> list[pa.Array]:
    """Return columns as the entity's key, in its declared types; InvalidValue names one that is missing."""
    for name in names:
        if name not in table.column_names:
            raise InvalidValue(name, f"the table has no such key column{names_near(name, table.column_names)}")
    return [
        whole(cast(pa.chunked_array(table[name]), dtype, name))
        for name, dtype in zip(names, entity.dtypes, strict=True)
    ]


def keys(table: pa.Table, entity: Entity) -> npt.NDArray[np.generic]:
    """Return each row's key: int64, or object where keys are strings or some are null.

    A key of several columns is their `key_text`, and null where one of them is.
    """
    parts = key_columns(table, entity.keys, entity)
    key = parts[0] if len(parts) == 1 else _key_texts(parts)
    if pa.types.is_string(key.type) or key.null_count:
        return np.array(key.to_pylist(), dtype=object)
    return np.asarray(key.to_numpy(zero_copy_only=False), np.int64)


def _key_texts(parts: Sequence[pa.Array]) -> pa.Array:
    """Return what `key_text` returns, of whole columns."""
    texts = []
    for part in parts:
        text = part
        if pa.types.is_string(part.type):
            for sign in ("\\", ":"):
                text = pc.replace_substring(text, sign, f"\\{sign}")
        texts.append(text.cast(pa.string()))
    return pc.binary_join_element_wise(*texts, ":", null_handling="emit_null")


def owned(table: pa.Table, entity: Entity) -> pa.Table:
    """Return the rows that have a key."""
    for name in entity.keys:
        if table[name].null_count:
            table = table.filter(pc.is_valid(table[name]))
    return table


def conform(source: EventSource, table: pa.Table, wanted: Sequence[str] | None = None) -> pa.Table:
    """Return the wanted columns (None: all) in their declared types, and both times as int64.

    A missing known_time is the event_time, an optional column that is missing is null; a null id is refused.
    InvalidValue names the column.
    """
    require_unique(table.column_names)
    if KNOWN_TIME in table.column_names and table.num_rows:
        _same_zone(table)
    columns = {}
    for name in source.columns if wanted is None else wanted:
        dtype = source.columns[name]
        if name in table.column_names:
            columns[name] = cast(table[name], dtype, name)
        elif name in source.optional:
            columns[name] = pa.chunked_array([pa.nulls(table.num_rows, ARROW_TYPES[dtype])])
        else:
            raise InvalidValue(
                name,
                f"events of {source.name} need this column{names_near(name, table.column_names)}",
                hint=f"if producers do not send it yet: optional=({name!r},) in the source's definition",
            )
    if source.id in columns and columns[source.id].null_count:
        raise InvalidValue(source.id, "an event without an id cannot be told from another")
    event_time = times(table, EVENT_TIME)
    columns[EVENT_TIME] = pa.array(event_time)
    columns[KNOWN_TIME] = pa.array(times(table, KNOWN_TIME, otherwise=EVENT_TIME))
    return pa.table(columns)


def _same_zone(table: pa.Table) -> None:
    """Refuse one time column with a zone beside one without."""
    both = {name: table[name].type for name in (EVENT_TIME, KNOWN_TIME) if name in table.column_names}
    zoned = {name: kind.tz is not None for name, kind in both.items() if pa.types.is_timestamp(kind)}
    if len(set(zoned.values())) == 2:
        bare = next(name for name, has in zoned.items() if not has)
        raise InvalidValue(
            bare,
            "has no time zone and the other time column has one",
            hint="give both a zone, or neither: then they are UTC",
        )


def events_of(view: WindowView, table: pa.Table) -> Events:
    """Return the events of a view from rows of its source; rows without a key are left out."""
    table = owned(table, view.entity)
    return events_by(view, table, keys(table, view.entity))


def events_by(view: WindowView, table: pa.Table, owner: npt.NDArray[np.generic]) -> Events:
    """Return the events of a view from rows of its source, under the key that is given for each."""
    source = view.source
    known = times(table, KNOWN_TIME, otherwise=EVENT_TIME)
    values = [_values(table, name, source.columns[name], scale) for name, scale in view.columns]
    if source.retracts is not None:
        back = cast(table[source.retracts], "bool", source.retracts).fill_null(False).to_numpy()
        values.append(np.where(back, known, FOREVER))
        known = np.where(back, FOREVER, known)
    return build_events(
        owner,
        make_records(times(table, EVENT_TIME), known, event_ids(np.asarray(table[source.id].to_numpy())), values),
        retracts=source.retracts is not None,
    )


def _values(table: pa.Table, name: str, dtype: str, scale: int) -> Int64:
    """Return a column as the records keep it: scaled numbers, or identities."""
    if scale != HASHED:
        return scaled(numbers(table, name, dtype), scale, field=name)
    column = cast(table[name], dtype, name)
    there = column.is_valid().to_numpy()
    values = column.drop_null().to_numpy()
    if values.dtype.kind == "f":
        values = (values.astype(np.float64) + 0.0).view(np.int64)  # −0 is 0
    identities = np.full(len(there), NULL, np.int64)
    identities[there] = mixed(event_ids(values.astype(np.int64) if values.dtype.kind == "b" else values))
    return identities


def needed(view: View) -> list[str]:
    """Return the columns of the source that a view reads, without the times."""
    source = view.source
    values = view.columns if isinstance(view, RowView) else [column for column, _ in view.columns]
    taken_back = [] if source.retracts is None else [source.retracts]
    return list(dict.fromkeys([*view.entity.keys, source.id, *values, *taken_back]))


def with_times(view: View) -> list[str]:
    """Return the columns of the source that an evaluation of the view reads, the times last."""
    return list(dict.fromkeys([*needed(view), EVENT_TIME, KNOWN_TIME]))


def numbers(table: pa.Table, name: str, dtype: str) -> npt.NDArray[np.generic]:
    """Return a numeric column as declared; nulls become NaN."""
    if dtype == "string":
        raise InvalidValue(name, "a string cannot be aggregated")
    column = cast(table[name], dtype, name)
    if column.null_count or pa.types.is_floating(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    return np.asarray(column.to_numpy())


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def locate(known: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> Int64:
    """Return the position of each wanted key in the ascending known ones, −1 where it is absent or None."""
    if len(known) == 0 or len(wanted) == 0:
        return np.full(len(wanted), -1, np.int64)
    if wanted.dtype.kind == "O":
        position = {key: i for i, key in enumerate(known.tolist())}
        return np.array([position.get(key, -1) for key in wanted], np.int64)
    found = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[found] == wanted, found, -1).astype(np.int64)


def cast(column: pa.ChunkedArray, dtype: str, name: str) -> pa.ChunkedArray:
    """Return a column in a declared dtype; InvalidValue names one that does not fit.

    Half a number is no key, text is no number, and a number is no text: `7` and `007` would be one key or two.
    """
    wanted = ARROW_TYPES[dtype]
    if column.type == wanted:
        return column
    if dtype == "timestamp" and pa.types.is_timestamp(column.type):
        return _microseconds(column, name)
    try:
        if _FAMILIES.get(dtype, "number") in _families(column.type):
            return column.cast(wanted, safe=not pa.types.is_floating(wanted))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    raise InvalidValue(name, f"{column.type} values where {dtype} is declared")


_FAMILIES = {"string": "text", "bool": "flag"}


def _families(kind: pa.DataType) -> tuple[str, ...]:
    """Return what values of a type may stand for; a column of nulls may be anything."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return ("text", "flag", "number")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ("text",)
    if pa.types.is_boolean(kind):
        return ("flag",)
    return () if pa.types.is_temporal(kind) else ("flag", "number")
