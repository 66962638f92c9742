"""Replaces rows of a lake table by key: the files that hold such a key are written anew without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headway.core.errors import InvalidValue, NotFound
from headway.features.lake.files import Write, bucket_key, described, in_order, live_files, read_rows, write_rows
from headway.features.lake.transaction import changing

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table


def require_keys(name: str, rows: pa.Table, keys: Sequence[str]) -> None:
    """Refuse rows whose keys are missing, null or twice there: which of two should stay is not ours to guess."""
    for key in keys:
        if key not in rows.column_names:
            raise NotFound("key column", key, known=rows.column_names, field=name)
        if rows[key].null_count:
            raise InvalidValue(f"{name}.{key}", f"null in {rows[key].null_count} rows", hint="a key is never null")
    distinct = rows.group_by(list(keys)).aggregate([]).num_rows
    if not keys or distinct != rows.num_rows:
        twice = rows.num_rows - distinct if keys else rows.num_rows
        raise InvalidValue(
            f"{name} by {', '.join(keys) or 'nothing'}", f"{twice} rows repeat a key", hint="one row per key and batch"
        )


def replace_rows(table: Table, rows: pa.Table, keys: Sequence[str], properties: dict[str, str], write: Write) -> None:
    """Commit rows in place of those with the same keys, in one snapshot."""
    wanted = rows.select(list(keys)).combine_chunks()
    with changing(table) as change:
        update = change.update_snapshot(snapshot_properties=properties).overwrite()
        for path, file in _candidates(table, rows, keys).items():
            data = read_rows(table, [path])
            kept = data.join(wanted, keys=list(keys), join_type="left anti")
            if kept.num_rows == data.num_rows:
                continue
            update.delete_data_file(file)
            if kept.num_rows:
                for made in write_rows(table, in_order(table, kept.select(data.column_names)), write):
                    update.append_data_file(made)
        for made in write_rows(table, rows, write):
            update.append_data_file(made)
        update.commit()


def _candidates(table: Table, rows: pa.Table, keys: Sequence[str]) -> dict[str, DataFile]:
    """Return the files that may hold one of the keys: those of their buckets, where the key says the bucket."""
    files = live_files(table, table.current_snapshot())
    key = bucket_key(table)
    if key is None or key not in keys:
        return files
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import BucketTransform

    transform = table.spec().fields[0].transform
    schema: Schema = table.schema()
    if not isinstance(transform, BucketTransform):
        return files
    numbers = transform.pyarrow_transform(schema.find_field(key).field_type)(rows[key].combine_chunks())
    buckets = set(pc.unique(numbers).to_pylist())
    return {path: file for path, file in files.items() if described(file).bucket in buckets}
