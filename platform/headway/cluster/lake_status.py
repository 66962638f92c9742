"""What lies in the lake: tables, their newest snapshots, rows, files and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headway.core.settings import Settings
from headway.core.times import format_time
from headway.core.types import Principal


@dataclass(frozen=True, kw_only=True)
class TableStatus:
    """One table, as its newest snapshot counts it."""

    table: str
    rows: int
    files: int
    mebibytes: float
    small: int
    """Files that `headway lake compact` would merge."""
    snapshots: int
    pinned: int
    """Snapshots that trainings and versions hold."""
    waiting: int
    """Files that no snapshot has any more and that go when their grace is over."""
    snapshot_id: int | None
    committed: str
    """RFC 3339; empty without a snapshot."""


def lake_status(settings: Settings, principal: Principal, tables: Sequence[str] = ()) -> list[TableStatus]:
    """Return some tables, or every one, by name; needs `data:read`, though no row is read.

    NotFound offers the nearest to a name that there is not.
    """
    from headway.features.lake.files import described, live_files
    from headway.features.lake.layout import groups
    from headway.features.lake.memory import GARBAGE, GARBAGE_SCHEMA, read_side
    from headway.features.lake.tables import Location, open_catalog, open_table, table_names

    principal.require("data", "read")
    catalog = open_catalog(Location.of(settings))
    found = []
    for name in tables or table_names(catalog):
        table = open_table(catalog, name)
        snapshot = table.current_snapshot()
        counts = dict(snapshot.summary.additional_properties) if snapshot and snapshot.summary else {}
        found.append(
            TableStatus(
                table=name,
                rows=int(counts.get("total-records", 0)),
                files=int(counts.get("total-data-files", 0)),
                mebibytes=round(int(counts.get("total-files-size", 0)) / 2**20, 1),
                small=sum(map(len, groups(map(described, live_files(table, snapshot).values()), whole=True))),
                snapshots=len(table.metadata.snapshots),
                pinned=len({ref.snapshot_id for pin, ref in table.metadata.refs.items() if pin != "main"}),
                waiting=read_side(table, GARBAGE, GARBAGE_SCHEMA).num_rows,
                snapshot_id=snapshot.snapshot_id if snapshot else None,
                committed=format_time(snapshot.timestamp_ms * 1_000) if snapshot else "",
            )
        )
    return found
