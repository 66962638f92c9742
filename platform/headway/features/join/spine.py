"""The rows of a file that features are joined to, read in the types that the feature service declares.

A CSV file has no types of its own: read as declared, the key `007` stays text and a price is no integer because the
first thousand were whole.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME
from headway.features.arrow import ARROW_TYPES, require_unique, times
from headway.features.definitions import FeatureService


def read_spine(path: Path, service: FeatureService) -> pa.Table:
    """Return the rows of a Parquet file or folder, or of a CSV file; InvalidValue says why it cannot be read."""
    if not path.exists():
        raise InvalidValue("--spine", f"{path} does not exist", hint="a Parquet or CSV file")
    try:
        rows = _read_csv(path, service) if path.suffix == ".csv" else _read_parquet(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidValue("--spine", f"{path} cannot be read: {error}", hint="a Parquet or CSV file") from None
    return rows


def _read_parquet(path: Path) -> pa.Table:
    if path.is_file():
        require_unique(pq.read_schema(path).names)
    return pq.read_table(path)


def _read_csv(path: Path, service: FeatureService) -> pa.Table:
    """Return the rows; event_time is read as text first, so that a mixture of zones is seen."""
    types = {name: ARROW_TYPES[dtype] for name, dtype in service.key_columns.items()}
    types |= {name: ARROW_TYPES[dtype] for name, dtype in service.request.items() if dtype != "timestamp"}
    types[EVENT_TIME] = pa.string()
    options = pc_csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    rows = pc_csv.read_csv(path, convert_options=options)
    require_unique(rows.column_names)
    if EVENT_TIME not in rows.column_names:
        return rows
    try:
        moments = rows[EVENT_TIME].cast(pa.int64())
    except pa.ArrowInvalid:
        moments = pa.array(times(rows, EVENT_TIME)).cast(pa.timestamp("us", tz="UTC"))
    return rows.set_column(rows.column_names.index(EVENT_TIME), EVENT_TIME, moments)
