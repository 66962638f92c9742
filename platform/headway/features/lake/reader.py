"""The way data leaves the lake: every read names who, why and which snapshot, and is audited, allowed or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from headway.core.clock import Clock
from headway.core.errors import AccessError, Forbidden, NotFound, Unauthenticated
from headway.core.settings import Settings
from headway.core.times import EVENT_TIME, INGESTED_AT, KNOWN_TIME, format_time
from headway.core.types import Principal
from headway.features.definitions import EventSource
from headway.features.lake.faults import lake_faults
from headway.features.lake.files import described, matching
from headway.features.lake.memory import stamp
from headway.features.lake.schema import read_schema
from headway.features.lake.tables import (
    PURPOSES,
    Location,
    TableSpec,
    file_schema,
    from_lake,
    moment,
    open_catalog,
    open_table,
    spec_of,
)
from headway.governance.audit_event import AuditSink

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import Table

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Readable = EventSource | TableSpec | str


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """An allowed read: the files of one snapshot, so that tasks read them without a catalog or audit of their own."""

    table: str
    snapshot_id: int
    """0: the table has no rows yet."""
    schema: pa.Schema
    files: tuple[tuple[str, int], ...]
    """(path, bucket number; −1 where the table is not bucketed, or the key is null)."""

    def bucket(self, number: int) -> tuple[str, ...]:
        """Return the files of one bucket."""
        return tuple(path for path, bucket in self.files if bucket == number)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return all files."""
        return tuple(path for path, _ in self.files)


class LakeReader:
    """Reads for a principal and a purpose; needs the scope `data:read` and a purpose that the table allows."""

    def __init__(self, lake: Settings | Location, audit: AuditSink, clock: Clock) -> None:
        self._location = lake if isinstance(lake, Location) else Location.of(lake)
        with lake_faults("open the lake"):
            self._catalog = open_catalog(self._location)
        self._audit = audit
        self._clock = clock

    def snapshot(self, table: Readable) -> int:
        """Return the current snapshot id of a table, 0 where it has no rows; NotFound if it does not exist."""
        snapshot = self._open(table).current_snapshot()
        return 0 if snapshot is None else int(snapshot.snapshot_id)

    def has(self, table: Readable, snapshot_id: int) -> bool:
        """Tell whether a snapshot is still there; 0, that of an empty table, always is."""
        opened = self._open(table)
        return snapshot_id == 0 or opened.snapshot_by_id(snapshot_id) is not None

    def at(self, table: Readable, moment: int) -> int:
        """Return the snapshot that was current at a moment, UTC microseconds.

        NotFound names the snapshots around it where that one has expired, or was never.
        """
        listed = sorted(self._open(table).metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
        count = sum(snapshot.timestamp_ms * 1_000 <= moment for snapshot in listed)
        around = listed[max(0, count - 1) : count + 1]
        numbers = [snapshot.sequence_number or 0 for snapshot in around]
        if not count or (len(around) == 2 and numbers[1] != numbers[0] + 1):
            kept = [format_time(snapshot.timestamp_ms * 1_000) for snapshot in around]
            raise NotFound("snapshot of", format_time(moment), known=kept, field=_name(table))
        return int(around[0].snapshot_id)

    def stamp(self, table: Readable, snapshot_id: int) -> int | None:
        """Return the largest `ingested_at` of a snapshot, 0 for none; None where nothing remembers it any more."""
        return stamp(self._open(table), snapshot_id) if snapshot_id else 0

    def parent(self, table: Readable, snapshot_id: int) -> int:
        """Return the snapshot that a snapshot was added to; 0: none, or it is not there any more."""
        snapshot = self._open(table).snapshot_by_id(snapshot_id)
        return 0 if snapshot is None else int(snapshot.parent_snapshot_id or 0)

    def scan(
        self,
        table: Readable,
        principal: Principal,
        purpose: str,
        *,
        columns: Sequence[str] | None = None,
        event_time: tuple[int, int] | None = None,
        known_by: int | None = None,
        snapshot_id: int | None = None,
        bucket: int | None = None,
    ) -> pa.Table:
        """Return rows, times as int64 UTC microseconds, in no particular order.

        Args:
            table: Source, table, or table name.
            principal: Who reads.
            purpose: Why; the principal's own, and one that the table allows.
            columns: Subset; None: all.
            event_time: Half-open range.
            known_by: Only rows with known_time up to and including this.
            snapshot_id: A pinned snapshot; None: the current one.
            bucket: Only this bucket's files.
        """
        plan = self.plan(table, principal, purpose, event_time=event_time, known_by=known_by, snapshot_id=snapshot_id)
        if columns is not None:
            for name in columns:
                if name not in plan.schema.names:
                    raise NotFound("column", name, known=plan.schema.names, field=plan.table)
        paths = plan.paths if bucket is None else plan.bucket(bucket)
        return read_files(plan.schema, paths, columns, event_time=event_time, known_by=known_by)

    def plan(
        self,
        table: Readable,
        principal: Principal,
        purpose: str,
        *,
        event_time: tuple[int, int] | None = None,
        known_by: int | None = None,
        known_from: int | None = None,
        snapshot_id: int | None = None,
        ingested_after: int | None = None,
    ) -> ReadPlan:
        """Check the right to read, audit it, and return the files that may hold matching rows.

        `ingested_after` is a `stamp`: what was added after its snapshot is meant.
        """
        opened = self._open(table)
        allowed = table.purposes if not isinstance(table, str) else _listed(opened.properties.get(PURPOSES, ""))
        current = opened.current_snapshot()
        wanted = snapshot_id or (0 if current is None else int(current.snapshot_id))
        resource = f"{_name(table)}@{wanted}"
        try:
            self._allow(_name(table), principal, purpose, allowed)
        except AccessError:
            self._record(principal, resource, purpose, "denied")
            raise
        if wanted and opened.snapshot_by_id(wanted) is None:
            raise NotFound(
                "snapshot",
                str(wanted),
                known=[str(s.snapshot_id) for s in opened.metadata.snapshots],
                field=_name(table),
            )
        snapshot = opened.snapshot_by_id(wanted) if wanted else None
        found = matching(opened, snapshot, _prune(event_time, known_by, known_from, ingested_after))
        files = [(file.path, -1 if file.bucket is None else file.bucket) for file in map(described, found)]
        self._record(principal, resource, purpose, "done")
        spec = None if isinstance(table, str) else spec_of(table)
        schema = read_schema(opened.schema().as_arrow(), spec)
        return ReadPlan(table=_name(table), snapshot_id=wanted, schema=schema, files=tuple(sorted(files)))

    def _open(self, table: Readable) -> Table:
        with lake_faults(f"read {_name(table)}"):
            return open_table(self._catalog, _name(table))

    def _allow(self, name: str, principal: Principal, purpose: str, allowed: tuple[str, ...]) -> None:
        if principal.expires <= self._clock.now():
            raise Unauthenticated(f"the identity of {principal.sub} has expired", hint="headway login")
        principal.require("data", "read")
        if purpose != principal.purpose:
            way_out = f"headway login --purpose {purpose}" if principal.kind == "human" else None
            raise Forbidden(f"{principal.sub} acts for {principal.purpose!r}, not for {purpose!r}", hint=way_out)
        if purpose not in allowed:
            raise Forbidden(
                f"{name} may not be read for {purpose!r}", hint=f"its purposes: {', '.join(allowed) or 'none'}"
            )

    def _record(self, principal: Principal, resource: str, purpose: str, outcome: str) -> None:
        self._audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action="data.read",
            resource=resource,
            purpose=purpose,
            outcome=outcome,
        )


def read_files(
    schema: pa.Schema,
    paths: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    event_time: tuple[int, int] | None = None,
    known_by: int | None = None,
    keys: tuple[str, pa.Array] | None = None,
    ingested_after: int | None = None,
    known_in: Sequence[tuple[int, int]] = (),
) -> pa.Table:
    """Return matching rows of data files, times as int64; needs no catalog, so that tasks start quickly.

    `keys` are a column and the values that it may have; `known_in` are ranges of known_time, both ends included, of
    which one has to hold (none given: any).
    """
    names = list(columns) if columns is not None else schema.names
    plain = file_schema(schema)
    if not paths:
        return from_lake(pa.schema([plain.field(name) for name in names]).empty_table())
    system, _ = pafs.FileSystem.from_uri(paths[0])
    inside = [pafs.FileSystem.from_uri(path)[1] for path in paths]
    data = pads.dataset(inside, schema=plain, filesystem=system, format="parquet")
    return from_lake(data.to_table(columns=names, filter=_filter(event_time, known_by, keys, ingested_after, known_in)))


def _filter(
    event_time: tuple[int, int] | None,
    known_by: int | None,
    keys: tuple[str, pa.Array] | None,
    ingested_after: int | None,
    known_in: Sequence[tuple[int, int]] = (),
) -> pc.Expression | None:
    parts: list[pc.Expression] = []
    known = pc.field(KNOWN_TIME)
    ranges = [(known >= moment(first)) & (known <= moment(last)) for first, last in known_in]
    if ranges:
        parts.append(reduce(or_, ranges))
    if event_time is not None:
        parts += [pc.field(EVENT_TIME) >= moment(event_time[0]), pc.field(EVENT_TIME) < moment(event_time[1])]
    if known_by is not None:
        parts.append(pc.field(KNOWN_TIME) <= moment(known_by))
    if ingested_after is not None:
        parts.append(pc.field(INGESTED_AT) > moment(ingested_after))
    if keys is not None:
        parts.append(pc.field(keys[0]).isin(keys[1]))
    if not parts:
        return None
    return reduce(and_, parts)


def _prune(
    event_time: tuple[int, int] | None, known_by: int | None, known_from: int | None, ingested_after: int | None
) -> BooleanExpression | None:
    """Return the same condition for the catalog, which skips files by their statistics."""
    from pyiceberg.expressions import parser

    def text(microseconds: int) -> str:
        return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()

    parts: list[str] = []
    if event_time is not None:
        first, end = event_time
        parts += [f"{EVENT_TIME} >= '{text(first)}'", f"{EVENT_TIME} < '{text(end)}'"]
    if known_by is not None:
        parts.append(f"{KNOWN_TIME} <= '{text(known_by)}'")
    if known_from is not None:
        parts.append(f"{KNOWN_TIME} >= '{text(known_from)}'")
    if ingested_after is not None:
        parts.append(f"{INGESTED_AT} > '{text(ingested_after)}'")
    return parser.parse(" and ".join(parts)) if parts else None


def _name(table: Readable) -> str:
    if isinstance(table, EventSource):
        return table.table
    return table if isinstance(table, str) else table.name


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))
