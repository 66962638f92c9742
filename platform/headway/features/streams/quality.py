"""What segments of a stream show of their source's promises: shares over enough rows, and alarms that begin and end.

What a single row breaks never gets here: it is a dead letter. What only many rows can break (a share, a delay, a key
that is repeated, a day's volume) is known once they are served already, so it stops nothing: it is an alarm in the
status, and the audit tells when it began and ended. Tallies move with the checkpoint, and profiles remember how far a
partition was counted, so a segment that is made again counts once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import msgspec
import pyarrow as pa

from headway.core.control import ControlStore
from headway.core.types import Principal
from headway.features.definitions import EventSource
from headway.features.quality.check import check
from headway.features.quality.expectations import Expectation, Kind
from headway.features.quality.profiles import Profiles
from headway.features.quality.rows import judges_rows
from headway.governance.audit_event import AuditSink

_ALLOWED = 5
"""A share is judged over so many rows that at least this many may break it."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One promise over the segments since it was judged last."""

    rows: int = 0
    breaches: int = 0
    broken: str = ""
    """What the last judgement found, in words without values; empty: kept."""


Tallies = Mapping[str, Tally]
"""Name of a promise → its tally."""


class SegmentQuality:
    """Counts and judges the segments of one partition."""

    def __init__(self, control: ControlStore, audit: AuditSink) -> None:
        self._profiles = Profiles(control)
        self._audit = audit

    def after(
        self, rows: pa.Table, end: int, before: Tallies, source: EventSource, principal: Principal, batch: str
    ) -> dict[str, Tally]:
        """Return the tallies after a segment up to an offset, in the profile then; what changes is audited."""
        self._profiles.add_stretch(source, rows, batch.rpartition(":")[0], end)
        tallies = judged(source, rows, before)
        for change in changes(before, tallies):
            self._audit.append(
                actor=principal.sub,
                kind=principal.kind,
                action="quality.promise",
                resource=f"{source.table}#{batch}",
                purpose=principal.purpose,
                outcome=change,
            )
        return tallies


def judged(source: EventSource, rows: pa.Table, before: Tallies) -> dict[str, Tally]:
    """Return the tallies of a source's promises after a segment with these rows."""
    promises = {promise.name: promise for promise in source.expectations if _of_many(promise)}
    report = check(dataclasses.replace(source, expectations=tuple(promises.values())), rows)
    after = {}
    for finding in report.findings:
        promise, tally = promises[finding.expectation], before.get(finding.expectation, Tally())
        count, breaches = tally.rows + report.rows, tally.breaches + finding.breaches
        if count < _enough(promise):
            after[promise.name] = Tally(rows=count, breaches=breaches, broken=tally.broken)
            continue
        allowed, broken = promise.allowed(count), ""
        if breaches > allowed:
            broken = f"{promise.name}: {breaches:,} of {count:,} rows break it, {allowed:,} allowed"
        elif not finding.passed:
            broken = report.line(finding)
        after[promise.name] = Tally(broken=broken)
    return after


def changes(before: Tallies, after: Tallies) -> list[str]:
    """Return what began and what ended between two tallies, in words."""
    began = [tally.broken for name, tally in after.items() if tally.broken and not before.get(name, Tally()).broken]
    ended = [name for name, tally in before.items() if tally.broken and not after.get(name, Tally()).broken]
    return [f"broken: {line}" for line in began] + [f"kept again: {name}" for name in ended]


def broken_promises(tallies: Tallies) -> tuple[str, ...]:
    """Return one line per broken promise."""
    return tuple(tally.broken for tally in tallies.values() if tally.broken)


def _of_many(promise: Expectation) -> bool:
    """Whether only many rows together can break it; how a segment was cut says nothing about its source."""
    return not judges_rows(promise) and promise.kind is not Kind.ROWS_PER_BATCH


def _enough(promise: Expectation) -> int:
    return math.ceil(_ALLOWED / promise.tolerance) if promise.tolerance else 0
