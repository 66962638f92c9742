"""Keeps a lake table quick to read: merges small files and lets old snapshots go, in steps of about a second.

Every step ends in one commit of the catalog. Killed before it, a step leaves files that nothing names and
`remove_orphans` finds; killed after it, nothing is missing. So the next step needs to know of no earlier one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headway.features.lake_files import Write, delete, described, in_order, live_files, read_rows, write_rows
from headway.features.lake_layout import groups, step
from headway.features.lake_memory import (
    COMPACTED,
    GARBAGE,
    GARBAGE_SCHEMA,
    MEMORY,
    STAMP,
    read_side,
    remembered,
    stamp_of,
    write_side,
)
from headway.features.lake_pins import abandoned
from headway.features.lake_retention import Retention, expirable

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

SNAPSHOTS_PER_STEP = 200


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a step of compaction did; steps add up."""

    merged: int = 0
    """Files that were replaced."""
    written: int = 0
    rows: int = 0
    mebibytes: float = 0.0
    """Read."""
    left: int = 0
    """Groups of files still to be merged."""

    def __add__(self, after: Compacted) -> Compacted:
        """Return both together."""
        return Compacted(
            merged=self.merged + after.merged,
            written=self.written + after.written,
            rows=self.rows + after.rows,
            mebibytes=round(self.mebibytes + after.mebibytes, 3),
            left=after.left,
        )


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What a step of expiry did; steps add up."""

    snapshots: int = 0
    released: int = 0
    """Files that no snapshot has any more; they stay for the grace."""
    removed: int = 0
    """Files whose grace was over."""
    left: int = 0
    """Snapshots still to go."""

    def __add__(self, after: Expired) -> Expired:
        """Return both together."""
        return Expired(
            snapshots=self.snapshots + after.snapshots,
            released=self.released + after.released,
            removed=self.removed + after.removed,
            left=after.left,
        )


def compact_step(table: Table, write: Write, *, whole: bool) -> Compacted:
    """Merge some small files of the newest snapshot, each group sorted into one file; the rows stay the same."""
    current = table.current_snapshot()
    files = live_files(table, current)
    planned = groups(map(described, files.values()), whole=whole)
    if not planned or current is None:
        return Compacted()
    taken = step(planned)
    properties = {COMPACTED: "true", STAMP: str(stamp_of(current))}
    written, rows = 0, 0
    with table.transaction() as change:
        update = change.update_snapshot(snapshot_properties=properties).overwrite()
        for group in taken:
            data = in_order(table, read_rows(table, [file.path for file in group]))
            rows += data.num_rows
            for file in group:
                update.delete_data_file(files[file.path])
            for made in write_rows(table, data, write):
                update.append_data_file(made)
                written += 1
        update.commit()
    replaced = [file for group in taken for file in group]
    return Compacted(
        merged=len(replaced),
        written=written,
        rows=rows,
        mebibytes=round(sum(file.size for file in replaced) / 2**20, 3),
        left=len(planned) - len(taken),
    )


def expire_step(table: Table, keep: Collection[int], now: int, retention: Retention) -> Expired:
    """Let some snapshots go that neither `keep`, a branch, a tag nor the retention holds, and remove what is due.

    What they say of batches and stamps is remembered in the same commit.
    """
    metadata = table.metadata
    for pin in abandoned(metadata.refs, now):
        table.manage_snapshots().remove_tag(pin).commit()
    metadata = table.metadata
    pinned = {*keep, *(ref.snapshot_id for ref in metadata.refs.values())}
    listed = [(snapshot.snapshot_id, snapshot.timestamp_ms * 1_000) for snapshot in metadata.snapshots]
    leaving = expirable(listed, pinned, now, retention)
    ids = set(leaving[:SNAPSHOTS_PER_STEP])
    garbage = read_side(table, GARBAGE, GARBAGE_SCHEMA)
    over = pc.less_equal(garbage["since"], now - retention.grace)
    due = garbage.filter(over)["path"].to_pylist()
    if not ids and not due:
        return Expired()
    delete(table, due)
    gone = [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id in ids]
    released = _released(table, gone, [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id not in ids])
    _commit(table, gone, garbage.filter(pc.invert(over)), released, now)
    return Expired(snapshots=len(ids), released=len(released), removed=len(due), left=len(leaving) - len(ids))


def _commit(table: Table, gone: list[Snapshot], garbage: pa.Table, released: list[str], now: int) -> None:
    from pyiceberg.table.update.snapshot import ExpireSnapshots

    names = (MEMORY, GARBAGE) if gone else (GARBAGE,)
    released = [*released, *(path for name in names if (path := table.properties.get(name)))]
    new = pa.table({"path": pa.array(released, pa.string()), "since": pa.repeat(pa.scalar(now), len(released))})
    properties = {GARBAGE: write_side(table, GARBAGE, pa.concat_tables([garbage, new]))}
    if gone:
        properties[MEMORY] = write_side(table, MEMORY, remembered(table, gone))
    with table.transaction() as change:
        change.set_properties(properties)
        if gone:
            ExpireSnapshots(change).by_ids([snapshot.snapshot_id for snapshot in gone]).commit()


def _released(table: Table, gone: list[Snapshot], staying: list[Snapshot]) -> list[str]:
    """Return the files that only snapshots that go have: data, manifests and lists of manifests."""

    def manifests(snapshots: list[Snapshot]) -> dict[str, ManifestFile]:
        return {manifest.manifest_path: manifest for snapshot in snapshots for manifest in snapshot.manifests(table.io)}

    kept = manifests(staying)
    dropped = {path: manifest for path, manifest in manifests(gone).items() if path not in kept}
    data: set[str] = set()
    for manifest in dropped.values():
        entries = manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        data |= {entry.data_file.file_path for entry in entries}
    if data:
        for manifest in kept.values():
            entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            data -= {entry.data_file.file_path for entry in entries}
    return [*sorted(data), *sorted(dropped), *(snapshot.manifest_list for snapshot in gone)]
