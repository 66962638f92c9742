"""New events into the lake and the online store in one call, under one batch id: repeating it is safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from headway.core.clock import Clock
from headway.core.errors import AccessError, Unauthenticated
from headway.core.types import Principal
from headway.features.arrow import conform, times
from headway.features.committer import Batch
from headway.features.definitions import EventSource, Overflow, View, WindowView
from headway.features.lake import TableSpec
from headway.features.online_store import OnlineStore, WriteReport
from headway.governance.audit_event import AuditSink


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
    """known_time up to which the views are now complete."""


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

    Views that reject overflow are written before the lake, so that refused events reach neither.
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
    strict = [view for view in views if isinstance(view, WindowView) and view.overflow is Overflow.REJECT]
    lenient = [view for view in views if view not in strict]
    reports: dict[str, WriteReport] = {}
    if online is not None:
        reports.update({view.name: online.write(view, events) for view in strict})
    snapshot = committer.append(source, events, batch_id)
    complete = watermark
    if complete is None:
        complete = int(times(events, "known_time").max()) if events.num_rows else 0
    if online is not None:
        reports.update({view.name: online.write(view, events) for view in lenient})
        for view in views:
            online.set_watermark(view, complete)
    _record(audit, principal, resource, "done")
    return IngestReport(rows=events.num_rows, snapshot_id=snapshot, views=reports, watermark=complete)


def _record(audit: AuditSink, principal: Principal, resource: str, outcome: str) -> None:
    audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action="data.ingest",
        resource=resource,
        purpose=principal.purpose,
        outcome=outcome,
    )
