"""What a person decides about a quarantined batch: release it into the lake, once, or drop it and keep the evidence."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from headway.core.clock import Clock
from headway.core.errors import Conflict
from headway.core.times import KNOWN_TIME
from headway.core.types import Principal
from headway.features.quality.quarantine import Case, Quarantine, State
from headway.governance.audit_event import AuditSink


def release(
    case: Case,
    quarantine: Quarantine,
    ingest: Callable[[pa.Table], int],
    clock: Clock,
    *,
    principal: Principal,
    audit: AuditSink,
    reason: str,
    keep_known_time: bool = False,
) -> Case:
    """Ingest a held batch under its own batch id and return its case; repeating it, after a crash too, is safe.

    Args:
        case: What is released.
        quarantine: Where it is held.
        ingest: Ingests rows under the case's batch id, which adds them once, and returns the lake's snapshot.
        clock: Tells when it is released.
        principal: Who decides; needs the scope `quality:write`.
        audit: Where it is recorded, before anything is ingested.
        reason: Why.
        keep_known_time: Whether rows stay known from when their source said. By default they are known from the
            release at the earliest, since no decision before it could use them; keep it for a replayed history.
    """
    principal.require("quality", "write")
    if case.state == State.RELEASED:
        return case
    now = clock.now()
    rows = quarantine.rows(case)
    if case.state == State.HELD and not keep_known_time:
        later = pc.max_element_wise(rows[KNOWN_TIME], pa.scalar(now, pa.int64()))
        rows = rows.set_column(rows.column_names.index(KNOWN_TIME), KNOWN_TIME, later)
    case = quarantine.decide(
        case,
        State.RELEASING,
        by=principal.sub,
        reason=reason,
        record=lambda decided: _record(decided, "quality.release", principal, audit),
        rows=rows,
    )
    return quarantine.released(case, ingest(quarantine.rows(case)))


def drop(case: Case, quarantine: Quarantine, *, principal: Principal, audit: AuditSink, reason: str) -> Case:
    """Decide that a held batch is not ingested; its report stays, and its rows while there is room."""
    principal.require("quality", "write")
    if case.state == State.RELEASED:
        raise Conflict(
            f"batch {case.batch} is released: its rows are in the lake",
            hint="a source with `retracts` can take events back",
        )
    return quarantine.decide(
        case,
        State.DROPPED,
        by=principal.sub,
        reason=reason,
        record=lambda decided: _record(decided, "quality.drop", principal, audit),
    )


def _record(case: Case, action: str, principal: Principal, audit: AuditSink) -> None:
    audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action=action,
        resource=f"events.{case.source}#{case.batch}",
        purpose=principal.purpose,
        outcome="done",
        refs=[case.rows_sha256],
    )
