"""New events into the lake and the online store in one call, under one batch id: repeating it is safe."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from headway.core.clock import Clock
from headway.core.errors import AccessError, HeadwayError, InvalidValue, Unauthenticated, Unavailable
from headway.core.times import EVENT_TIME, KNOWN_TIME, format_duration, format_time, parse_time
from headway.core.types import Principal
from headway.features.arrow import conform, times
from headway.features.backlog import Backlog
from headway.features.definitions import EventSource, Overflow, View, WindowView
from headway.features.lake.committer import Batch
from headway.features.lake.tables import TableSpec
from headway.features.online_store import ALL, OnlineStore
from headway.features.quality.gate import QUARANTINED, Gate, admit, count
from headway.features.write_report import WriteReport
from headway.governance.audit_event import AuditSink

_LOG = logging.getLogger(__name__)
_LAST = parse_time("9999-01-01")


class Appender(Protocol):
    """A committer, in this process or in its actor."""

    def append(self, table: EventSource | TableSpec, data: Batch, batch_id: str) -> int:
        """Append once per batch id and return the snapshot."""
        ...


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What an ingestion did."""

    rows: int
    snapshot_id: int
    """Snapshot of the lake that holds the batch."""
    views: dict[str, WriteReport]
    """Per view, what changed online."""
    watermark: int
    """known_time up to which the views are complete, once nothing is owed."""
    owed: int = 0
    """Rows that are in the lake and not yet online, because the store is away; they are written before newer ones."""
    warnings: tuple[str, ...] = ()
    """Broken expectations of the source that only warn."""


def ingest(
    source: EventSource,
    table: pa.Table,
    committer: Appender,
    online: OnlineStore | None,
    views: Sequence[View],
    batch_id: str,
    clock: Clock,
    *,
    principal: Principal,
    audit: AuditSink,
    watermark: int | None = None,
    backlog: Backlog | None = None,
    quality: Gate | None = None,
) -> IngestReport:
    """Append events of a source and update the views made from them.

    Args:
        source: Whose events.
        table: Its columns, event_time, and known_time (default: event_time).
        committer: The lake's writer.
        online: The online store; None: lake only.
        views: Views to update, all of this source.
        batch_id: Identity of the batch; repeating it adds nothing.
        clock: Tells whether the identity is still good.
        principal: Who ingests; needs the scope `ingest:<source>`.
        audit: Where it is recorded.
        watermark: known_time up to which the views are complete afterwards; None: the largest in the batch, which is
            right where batches come in the order of known_time.
        backlog: Lets the lake take what the online store cannot, within bounds; None: it is raised that the store is
            away, and the same batch has to be repeated.
        quality: Keeps batches that break an expectation of the source, and counts values; None: they are only refused.

    Views that reject overflow are written before the lake, so that refused events reach neither. Raises InvalidValue,
    before anything is written, for times further ahead than the source allows and for broken expectations.
    """
    resource = f"{source.table}#{batch_id}"
    try:
        if principal.expires <= clock.now():
            raise Unauthenticated(f"the identity of {principal.sub} has expired", hint="headway login")
        principal.require("ingest", source.name)
    except AccessError:
        _record(audit, principal, resource, "denied")
        raise
    events = conform(source, table)
    require_past(source, events, clock.now())
    complete = watermark
    if complete is None:
        complete = int(times(events, KNOWN_TIME).max()) if events.num_rows else 0
    try:
        admission = admit(source, events, batch_id, quality, principal.sub, now=clock.now())
    except HeadwayError as error:
        _record(audit, principal, resource, QUARANTINED if error.code == QUARANTINED else "failed")
        raise
    if admission.snapshot_id is not None:
        _record(audit, principal, resource, "done")
        return IngestReport(rows=events.num_rows, snapshot_id=admission.snapshot_id, views={}, watermark=complete)
    if backlog is not None and online is not None:
        backlog.require_room(source)
    strict = [view for view in views if isinstance(view, WindowView) and view.overflow is Overflow.REJECT]
    lenient = [view for view in views if view not in strict]
    reports: dict[str, WriteReport] = {}
    if online is not None:
        reports.update({view.name: online.write(view, events) for view in strict})
    snapshot = committer.append(source, events, batch_id)
    count(source, events, batch_id, quality)
    owed = 0
    if online is not None and backlog is None:
        reports.update({view.name: online.write(view, events) for view in lenient})
        for view in views:
            online.set_watermark(view, complete)
    elif online is not None and backlog is not None:
        try:
            reports.update(_follow(source, backlog, online, views, lenient, events, snapshot, complete))
        except Unavailable as error:
            backlog.owe(source, events.num_rows)
            owed = backlog.owed(source).rows
            _LOG.warning("%d rows of %s wait in the lake: %s", owed, source.name, error)
        else:
            backlog.settled(source)
    _record(audit, principal, resource, "done" if not owed else "owed")
    return IngestReport(
        rows=events.num_rows,
        snapshot_id=snapshot,
        views=reports,
        watermark=complete,
        owed=owed,
        warnings=admission.warnings,
    )


def _follow(
    source: EventSource,
    backlog: Backlog,
    online: OnlineStore,
    views: Sequence[View],
    lenient: Sequence[View],
    events: pa.Table,
    snapshot: int,
    complete: int,
) -> dict[str, WriteReport]:
    """Write the batch, and before it whatever the store lacks; only then say how far the views are complete."""
    reports: dict[str, WriteReport] = {}
    for view in views:
        lacks = backlog.lacks(view, backlog.reader.parent(source, snapshot) if snapshot else 0)
        if lacks:
            reports[view.name] = backlog.catch_up(view, complete)
            continue
        if view in lenient:
            reports[view.name] = online.write(view, events)
        if lacks is not None:
            online.set_materialized(view, ALL, snapshot, complete)
        online.set_watermark(view, complete)
    return reports


def require_past(source: EventSource, events: pa.Table, now: int) -> None:
    """Refuse a batch with a time too far ahead: one such event would push a key's true history out of its windows.

    No time may lie more than the source's `max_ahead` after the clock, and no event that much after it was known: the
    second tells a wrong clock in a replayed past too.
    """
    event_time, known_time = times(events, EVENT_TIME), times(events, KNOWN_TIME)
    clock = np.full(len(events), now)
    for name, given, bound, what in (
        (EVENT_TIME, event_time, clock, "the clock"),
        (KNOWN_TIME, known_time, clock, "the clock"),
        (EVENT_TIME, event_time, known_time, "its known_time"),
    ):
        ahead = np.flatnonzero(given - source.max_ahead > bound)
        if len(ahead):
            row = int(ahead[0])
            more = f" ({len(ahead)} rows are)" if len(ahead) > 1 else ""
            raise InvalidValue(
                f"rows[{row}].{name}",
                f"{_shown(int(given[row]))} is more than {format_duration(source.max_ahead)} after {what}, "
                f"{_shown(int(bound[row]))}{more}",
                hint=f"nothing was written; correct the producer's clock, or declare max_ahead of {source.name}",
            )


def _shown(moment: int) -> str:
    return format_time(moment) if 0 <= moment < _LAST else f"{moment} µs"


def _record(audit: AuditSink, principal: Principal, resource: str, outcome: str) -> None:
    audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action="data.ingest",
        resource=resource,
        purpose=principal.purpose,
        outcome=outcome,
    )
