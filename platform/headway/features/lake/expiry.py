"""Lets old snapshots of a lake table go: planned beside the commits of others, done by a short one of its own.

What the snapshots say of batches and stamps is remembered in the same commit. Files that no snapshot has any more are
deleted by a later step, when their grace is over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headway.features.lake.files import delete
from headway.features.lake.memory import GARBAGE, GARBAGE_SCHEMA, MEMORY, read_side, remembered, write_side
from headway.features.lake.pins import abandoned
from headway.features.lake.retention import Retention, expirable
from headway.features.lake.transaction import changing

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

SNAPSHOTS_PER_STEP = 200


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


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """What one commit is to change, prepared."""

    snapshots: frozenset[int]
    before: Mapping[str, str | None]
    """The side files that were read; with others, this does not hold any more."""
    after: Mapping[str, str]
    """Those that were written."""
    done: Expired


def drop_abandoned(table: Table, now: int) -> None:
    """Let go of what trainings hold that were killed long ago."""
    for pin in abandoned(table.metadata.refs, now):
        table.manage_snapshots().remove_tag(pin).commit()


def plan_expiry(table: Table, keep: Collection[int], now: int, retention: Retention) -> Expiry | None:
    """Delete files whose grace is over and prepare a commit that says so, and lets some snapshots go.

    Those in `keep`, under a branch or a tag, or within the retention stay. None where nothing is due.
    """
    metadata = table.metadata
    pinned = {*keep, *(ref.snapshot_id for ref in metadata.refs.values())}
    listed = [(snapshot.snapshot_id, snapshot.timestamp_ms * 1_000) for snapshot in metadata.snapshots]
    leaving = expirable(listed, pinned, now, retention)
    ids = frozenset(leaving[:SNAPSHOTS_PER_STEP])
    garbage = read_side(table, GARBAGE, GARBAGE_SCHEMA)
    over = pc.less_equal(garbage["since"], now - retention.grace)
    due = garbage.filter(over)["path"].to_pylist()
    if not ids and not due:
        return None
    delete(table, due)
    gone = [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id in ids]
    released = _released(table, gone, [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id not in ids])
    names = (MEMORY, GARBAGE) if gone else (GARBAGE,)
    before = {name: table.properties.get(name) for name in names}
    replaced = [*released, *(path for path in before.values() if path)]
    new = pa.table({"path": pa.array(replaced, pa.string()), "since": pa.repeat(pa.scalar(now), len(replaced))})
    after = {GARBAGE: write_side(table, GARBAGE, pa.concat_tables([garbage.filter(pc.invert(over)), new]))}
    if gone:
        after[MEMORY] = write_side(table, MEMORY, remembered(table, gone))
    done = Expired(snapshots=len(ids), released=len(released), removed=len(due), left=len(leaving) - len(ids))
    return Expiry(snapshots=ids, before=before, after=after, done=done)


def expire(table: Table, expiry: Expiry) -> bool:
    """Commit what was prepared; return False, with nothing changed, where the table is not as it was planned for."""
    from pyiceberg.table.update.snapshot import ExpireSnapshots

    metadata = table.metadata
    held = {ref.snapshot_id for ref in metadata.refs.values()}
    if expiry.snapshots & held or any(table.properties.get(name) != path for name, path in expiry.before.items()):
        return False
    with changing(table) as change:
        change.set_properties(dict(expiry.after))
        if expiry.snapshots:
            update = ExpireSnapshots(change)
            update._snapshot_ids_to_expire |= expiry.snapshots  # its `by_ids` copies the metadata for every id
            update.commit()
    return True


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
