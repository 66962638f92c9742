"""Data files of a lake table: written under an id of the write, listed in use, removed when nothing names them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME
from headway.features.lake.layout import LakeFile
from headway.features.lake.manifests import live
from headway.features.lake.memory import GARBAGE, GARBAGE_SCHEMA, MEMORY, read_side
from headway.features.lake.tables import file_schema
from headway.features.lake.transaction import changing

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot


@dataclass(frozen=True)
class Write:
    """One attempt to write: its id and the number of each file make the files' names, so that none is written twice."""

    id: UUID = field(default_factory=uuid4)
    numbers: count[int] = field(default_factory=count)


def write_rows(table: Table, rows: pa.Table, write: Write) -> list[DataFile]:
    """Write rows into new files, one or more per bucket; nothing is committed."""
    from pyiceberg.io.pyarrow import _dataframe_to_data_files

    return list(_dataframe_to_data_files(table.metadata, rows, table.io, write.id, write.numbers))


def add_rows(table: Table, rows: pa.Table, properties: dict[str, str], write: Write) -> None:
    """Commit rows as a snapshot with properties in its summary."""
    made = write_rows(table, rows, write)
    with changing(table) as change:
        update = change.update_snapshot(snapshot_properties=properties).fast_append()
        for file in made:
            update.append_data_file(file)
        update.commit()


def bucket_key(table: Table) -> str | None:
    """Return the column that the table is bucketed by."""
    fields = table.spec().fields
    return table.schema().find_column_name(fields[0].source_id) if fields else None


def in_order(table: Table, rows: pa.Table) -> pa.Table:
    """Return rows sorted by the bucket's key and event_time, so that statistics of row groups tell much."""
    key = bucket_key(table)
    return rows.sort_by([(name, "ascending") for name in (key, EVENT_TIME) if name is not None])


def read_rows(table: Table, files: Sequence[str]) -> pa.Table:
    """Return the rows of files in the columns that the table has now; null where a file is older than a column."""
    schema = file_schema(table.schema().as_arrow())
    if not files:
        return schema.empty_table()
    system, _ = pafs.FileSystem.from_uri(files[0])
    inside = [pafs.FileSystem.from_uri(path)[1] for path in files]
    return pads.dataset(inside, schema=schema, filesystem=system, format="parquet").to_table()


def live_files(table: Table, snapshot: Snapshot | None) -> dict[str, DataFile]:
    """Return the data files of a snapshot by path."""
    found = {}
    for manifest in [] if snapshot is None else filter(live, snapshot.manifests(table.io)):
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            found[entry.data_file.file_path] = entry.data_file
    return found


def matching(table: Table, snapshot: Snapshot | None, where: BooleanExpression | None) -> list[DataFile]:
    """Return the data files of a snapshot that by their statistics may have rows for which a condition holds.

    InvalidValue where the snapshot has row deletes, which only other tools write.
    """
    from pyiceberg.expressions.visitors import _InclusiveMetricsEvaluator
    from pyiceberg.manifest import ManifestContent

    if snapshot is None:
        return []
    if any(live(m) and m.content == ManifestContent.DELETES for m in snapshot.manifests(table.io)):
        raise InvalidValue(".".join(table.name()), "holds row deletes, which are not read yet", hint="compact it")
    files = list(live_files(table, snapshot).values())
    if where is None:
        return files
    holds = _InclusiveMetricsEvaluator(table.schema(), where).eval
    return [file for file in files if holds(file)]


def described(file: DataFile) -> LakeFile:
    """Return what planning needs of a data file."""
    bucket = file.partition[0] if len(file.partition) else None
    return LakeFile(
        path=file.file_path,
        bucket=None if bucket is None else int(bucket),
        size=file.file_size_in_bytes,
        rows=file.record_count,
    )


def used(table: Table) -> set[str]:
    """Return every file that the table's metadata names, and those that wait for the end of their grace."""
    metadata = table.metadata
    found = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    found |= {file.statistics_path for file in metadata.statistics}
    found |= {path for name in (MEMORY, GARBAGE) if (path := table.properties.get(name))}
    found |= set(read_side(table, GARBAGE, GARBAGE_SCHEMA)["path"].to_pylist())
    manifests = {}
    for snapshot in metadata.snapshots:
        found.add(snapshot.manifest_list)
        manifests.update({manifest.manifest_path: manifest for manifest in snapshot.manifests(table.io)})
    for path, manifest in manifests.items():
        found.add(path)
        entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        found |= {entry.data_file.file_path for entry in entries}
    return found


def remove_orphans(table: Table, *, writes: Collection[UUID] | None = None, before: int | None = None) -> int:
    """Delete files under the table's folder that nothing names, and return how many.

    Args:
        table: As the catalog has it now.
        writes: Only data files of these writes of ours, which failed.
        before: Only files last changed before this, UTC microseconds: younger ones may belong to a write under way.
    """
    system, root = pafs.FileSystem.from_uri(table.location())
    orphans = [info.path for info in _listing(system, root) if _matches(info, writes, before)]
    if orphans:
        named = {root + path.removeprefix(table.location()) for path in used(table)}
        orphans = [path for path in orphans if path not in named]
    for path in orphans:
        with suppress(FileNotFoundError):
            system.delete_file(path)
    return len(orphans)


def delete(table: Table, paths: Iterable[str]) -> None:
    """Delete files; those that are gone already are no error."""
    for path in paths:
        with suppress(FileNotFoundError):
            table.io.delete(path)


def _listing(system: pafs.FileSystem, root: str) -> Iterator[pafs.FileInfo]:
    for part in ("data", "metadata"):
        selector = pafs.FileSelector(f"{root}/{part}", recursive=True, allow_not_found=True)
        yield from (info for info in system.get_file_info(selector) if info.is_file)


def _matches(info: pafs.FileInfo, writes: Collection[UUID] | None, before: int | None) -> bool:
    if writes is not None and not any(str(write) in info.base_name for write in writes):
        return False
    return before is None or info.mtime_ns // 1_000 < before
