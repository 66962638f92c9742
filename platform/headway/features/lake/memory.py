"""What a lake table remembers beyond its snapshots: the batches it has, how new each snapshot was, files to be removed.

Batch ids and stamps stand in the snapshots' own summaries. Before a snapshot expires they move into a file that a table
property names; the property changes in the commit that removes the snapshots, so that no instant lies between. A stamp
is the largest `ingested_at` that a snapshot holds. Stamps rise with every commit, so rows that were added after a
snapshot are told by their `ingested_at`, whichever file compaction has put them into.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

BATCHES = "headway.batches"
STAMP = "headway.stamp"
COMPACTED = "headway.compacted"
"""In the summary of a snapshot that holds the same rows as the one before."""
MEMORY = "headway.memory"
GARBAGE = "headway.garbage"
REMEMBERED = 200_000
"""Batches of expired snapshots that a table remembers, the newest; one repeated later than that is added again."""
MEMORY_SCHEMA = pa.schema([("batch", pa.string()), ("snapshot", pa.int64()), ("stamp", pa.int64())])
GARBAGE_SCHEMA = pa.schema([("path", pa.string()), ("since", pa.int64())])


def summary(snapshot: Snapshot | None, name: str) -> str:
    """Return a property of a snapshot's summary; empty where there is none."""
    if snapshot is None or snapshot.summary is None:
        return ""
    return str(snapshot.summary.additional_properties.get(name, ""))


def stamp_of(snapshot: Snapshot | None) -> int:
    """Return a snapshot's stamp, 0 where it has none."""
    return int(summary(snapshot, STAMP) or 0)


def batches_of(snapshot: Snapshot) -> list[str]:
    """Return the batches that a snapshot added."""
    return [batch for batch in summary(snapshot, BATCHES).split(",") if batch]


def committed(table: Table) -> dict[str, int]:
    """Return every batch that the table remembers and its snapshot, expired or not."""
    memory = read_side(table, MEMORY, MEMORY_SCHEMA)
    known: dict[str, int] = dict(zip(memory["batch"].to_pylist(), memory["snapshot"].to_pylist(), strict=True))
    known.pop("", None)
    for snapshot in table.metadata.snapshots:
        known.update(dict.fromkeys(batches_of(snapshot), snapshot.snapshot_id))
    return known


def stamp(table: Table, snapshot_id: int) -> int | None:
    """Return the stamp of a snapshot, expired or not; None: the table does not know it any more."""
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is not None:
        return stamp_of(snapshot) or None
    memory = read_side(table, MEMORY, MEMORY_SCHEMA)
    where = memory["snapshot"].index(snapshot_id).as_py()
    return None if where < 0 else int(memory["stamp"][where].as_py())


def remembered(table: Table, leaving: Iterable[Snapshot]) -> pa.Table:
    """Return the memory with what the leaving snapshots say, cut to the newest; one without a batch has a row too."""
    rows = [
        {"batch": batch, "snapshot": snapshot.snapshot_id, "stamp": stamp_of(snapshot)}
        for snapshot in leaving
        for batch in batches_of(snapshot) or [""]
    ]
    whole = pa.concat_tables([read_side(table, MEMORY, MEMORY_SCHEMA), pa.Table.from_pylist(rows, MEMORY_SCHEMA)])
    return whole.slice(max(0, whole.num_rows - REMEMBERED))


def read_side(table: Table, name: str, schema: pa.Schema) -> pa.Table:
    """Return the file that a table property names; empty where there is none."""
    path = table.properties.get(name)
    if not path:
        return schema.empty_table()
    with table.io.new_input(path).open() as file:
        return pq.read_table(pa.BufferReader(file.read()), schema=schema)


def write_side(table: Table, name: str, data: pa.Table) -> str:
    """Write a new file for a table property and return its path; it counts once a commit names it."""
    path = f"{table.location()}/metadata/{name.rpartition('.')[2]}-{uuid.uuid4()}.parquet"
    buffer = pa.BufferOutputStream()
    pq.write_table(data, buffer, compression="zstd")
    with table.io.new_output(path).create() as file:
        file.write(buffer.getvalue().to_pybytes())
    return path
