"""The gate of ingestion: a batch passes, is refused and held, or was decided on before."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pyarrow as pa

from headway.core.errors import Conflict, InvalidValue, Unavailable
from headway.features.definitions import EventSource
from headway.features.quality.check import QualityReport, check
from headway.features.quality.digest import rows_sha256
from headway.features.quality.expectations import Kind
from headway.features.quality.profiles import Profiles
from headway.features.quality.quarantine import Case, Quarantine, State
from headway.features.quality.volume import Volumes

_LOG = logging.getLogger(__name__)
QUARANTINED = "quarantined"
"""Code of the error of a batch that is held."""
_NAMED = 3
_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What ingestion keeps of the batches it refuses, and of the values it takes."""

    quarantine: Quarantine
    profiles: Profiles | None = None
    approved: bool = False
    """A person released the batch: its source's expectations are not asked again."""


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A batch that may be ingested, or was."""

    warnings: tuple[str, ...] = ()
    snapshot_id: int | None = None
    """The snapshot of the lake that has these rows, where they were released before; None: they were not."""


def admit(
    source: EventSource, events: pa.Table, batch: str, gate: Gate | None, sender: str, *, now: int = 0
) -> Admission:
    """Let a batch pass that keeps its source's promises.

    Raises InvalidValue for one that does not: it is quarantined whole, or with no gate only refused. A batch id that is
    in quarantine stands for the rows it came with: the same rows again are refused again until they are released, and
    are ingested once; other rows under that id raise Conflict, unless the first were dropped. `now` tells which days
    are over.
    """
    if gate is not None and gate.approved:
        return Admission()
    decided = None if gate is None else _decided(gate.quarantine.of_batch(source.name, batch), events)
    if decided is not None:
        return decided
    report = check(source, events, _volumes(source, batch, gate, now))
    if report.rejected:
        if gate is None:
            raise _failed(report, f"nothing was written; correct the rows, or the expectations of {source.name}")
        raise _held(gate.quarantine.hold(batch, events, report, sender))
    for warning in report.warnings:
        _LOG.warning("batch %s of %s: %s", batch, source.name, warning)
    return Admission(warnings=report.warnings)


def count(source: EventSource, events: pa.Table, batch: str, gate: Gate | None) -> None:
    """Add an ingested batch to its source's profiles; ingestion does not fail where they are away."""
    if gate is None or gate.profiles is None:
        return
    try:
        gate.profiles.add(source, events, batch)
    except (Unavailable, Conflict) as error:
        _LOG.warning("batch %s of %s is not in its profile: %s", batch, source.name, error)


def _volumes(source: EventSource, batch: str, gate: Gate | None, now: int) -> Volumes | None:
    """Return what is known of the source's days, if it promises anything about them and the profiles are there."""
    asked = any(expectation.kind is Kind.USUAL_VOLUME for expectation in source.expectations)
    if not asked or gate is None or gate.profiles is None:
        return None
    try:
        rows, counted = gate.profiles.volumes(source, batch)
    except Unavailable as error:
        _LOG.warning("batch %s of %s is not compared with the days before: %s", batch, source.name, error)
        return None
    return Volumes(rows=rows, counted=counted, now=now)


def _decided(cases: list[Case], events: pa.Table) -> Admission | None:
    """Return where the rows of a batch were released; None where nobody knows the batch, or its rows were dropped."""
    if not cases:
        return None
    rows = rows_sha256(events)
    for case in cases:
        if case.rows_sha256 != rows:
            if case.state != State.DROPPED:
                raise Conflict(
                    f"batch {case.batch} of {case.source} is {case.state} with other rows",
                    hint=f"headway quality drop {case.batch}, or send these under another batch id",
                )
        elif case.state == State.RELEASED:
            return Admission(snapshot_id=case.snapshot_id)
        elif case.state == State.RELEASING:
            raise Unavailable(
                f"batch {case.batch} of {case.source} is being released by {case.decided_by}",
                retry_after_s=_RETRY_AFTER_S,
                hint=f"headway quality release {case.batch} completes it",
            )
        elif case.state == State.DROPPED:
            raise _failed(case.report, f"{case.decided_by} dropped these rows: send corrected ones")
        else:
            raise _held(case)
    return None


def _held(case: Case) -> InvalidValue:
    way_out = f"batch {case.batch} is in quarantine: headway quality show {case.batch}, then release or drop it"
    return _failed(case.report, way_out, code=QUARANTINED)


def _failed(report: QualityReport, hint: str, code: str | None = None) -> InvalidValue:
    """Name source, column, how many rows, and the way out; never a value."""
    broken = report.rejected
    column = next((name for finding in broken for name in finding.columns), "")
    more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    lines = "; ".join(report.line(finding) for finding in broken[:_NAMED])
    return InvalidValue(f"{report.source}.{column}".rstrip("."), f"{lines}{more}", hint=hint, code=code)
