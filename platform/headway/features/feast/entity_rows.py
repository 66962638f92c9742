"""The entity rows of a retrieval as Arrow: what Feast calls `entity_df`, given as a frame or as two times.

Only the time column is converted; every other column comes back as it was given.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.utils import compute_non_entity_date_range

from headway.core.errors import InvalidValue
from headway.features.feast.parquet_source import Source
from headway.features.feast.source_join import Pull, join_keys, rows_of_split, run_all

_TIME = "event_timestamp"


def entity_table(entity_df: Any) -> tuple[pa.Table, str]:
    """Return entity rows as Arrow, their times in UTC, and the name of the time column."""
    if isinstance(entity_df, str):
        raise InvalidValue("entity_df", "a SQL string, which this store does not run", hint="give a pandas DataFrame")
    if not isinstance(entity_df, pd.DataFrame):
        raise InvalidValue("entity_df", f"a {type(entity_df).__name__}", hint="give a pandas DataFrame")
    if not entity_df.columns.is_unique:
        raise InvalidValue("entity_df", "two columns have the same name")
    time = _TIME
    if time not in entity_df.columns:
        found = [name for name, kind in entity_df.dtypes.items() if pd.api.types.is_datetime64_any_dtype(kind)]
        if len(found) != 1:
            raise InvalidValue(
                "entity_df", f"no column {_TIME}", hint="or exactly one column of another name with times"
            )
        time = str(found[0])
    columns = {}
    for name, series in entity_df.items():
        try:
            columns[name] = pa.Array.from_pandas(_utc(series) if name == time else series)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, TypeError) as error:
            raise InvalidValue(str(name), f"values of entity_df that are not of one kind: {error}") from None
    table = pa.table(columns)
    if not pa.types.is_timestamp(table.schema.field(time).type):
        raise InvalidValue(time, f"{table.schema.field(time).type} values where times are expected")
    if table[time].null_count:
        raise InvalidValue(time, f"{table[time].null_count} rows of entity_df have no time")
    return table, time


def _utc(series: pd.Series) -> pd.Series:
    """Return times in UTC; naive ones are UTC, texts are parsed one by one."""
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        moved: pd.Series = series.dt.tz_localize("UTC") if series.dt.tz is None else series.dt.tz_convert("UTC")
        return moved
    if pd.api.types.is_numeric_dtype(series.dtype):
        raise ValueError("numbers are not times")
    parsed: pd.Series = pd.to_datetime(series, utc=True, format="mixed")
    return parsed


def all_entities(config: Any, views: list[Any], start: datetime | None, end: datetime | None) -> pd.DataFrame:
    """Return every key that the views have between two times, at the end: what a retrieval without entity_df means."""
    start, end = compute_non_entity_date_range(views, start_date=start, end_date=end)
    names = {tuple(view.projection.join_key_map.get(name, name) for name in join_keys(view)) for view in views}
    if len(names) != 1:
        raise InvalidValue("entity_df", "needed where views have different join keys")
    labels = next(iter(names))
    tables = []
    for view in views:
        source = Source.open(config, view.batch_source, view.name)
        mapping = view.batch_source.field_mapping
        keys = [source.column(name, mapping) for name in join_keys(view)]
        event = source.column(view.batch_source.timestamp_field, mapping)
        pull = Pull.of(config, view.batch_source, keys, keys or [event], event, None, start, end)
        for part in run_all(rows_of_split, [(pull, split) for split in pull.splits], pull.settings, pull.volume):
            kinds = pa.schema(list(zip(keys, pull.deciding.types, strict=True)))
            tables.append(
                part.select(keys).cast(kinds).rename_columns(list(labels)).group_by(list(labels)).aggregate([])
            )
    if not labels:
        return pd.DataFrame({_TIME: [end]})
    frame: pd.DataFrame = pa.concat_tables(tables).group_by(list(labels)).aggregate([]).to_pandas().dropna()
    frame = frame.sort_values(list(labels), ignore_index=True)
    frame[_TIME] = end
    return frame
