"""What people ask of the quality of ingested data: what is held, what becomes of it, how values shift."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from headway.cluster.compose import Installation
from headway.cluster.ingesting import ingest_rows
from headway.cluster.stream_parts import views_of
from headway.core.errors import InvalidValue, NotFound, Unavailable
from headway.core.times import DAY, format_time
from headway.core.types import Principal
from headway.features.definitions import EventSource, View
from headway.features.named import source_named
from headway.features.profile import BinnedColumn
from headway.features.quality import decisions
from headway.features.quality.profiles import DayCounts, layout
from headway.features.quality.quarantine import Case, Quarantine
from headway.monitoring.alarms import Finding, judge
from headway.monitoring.budget import DriftBudget
from headway.monitoring.definitions import Monitor
from headway.monitoring.reference import reference_of

WITHHELD = "(not for this purpose)"
BUDGET = DriftBudget(false_alarms_per_month=1.0, smallest_effect=0.1)
"""What early warnings keep to: no contract speaks for a source."""


@dataclass(frozen=True, kw_only=True)
class ColumnProfile:
    """How the values of one column lie, to a fifth of their size."""

    column: str
    missing: float
    """Share of rows."""
    low: float | None
    median: float | None
    high: float | None
    """Upper ends of the bins that hold the 5th, 50th and 95th percentile; None: text, or no value."""
    shift: float
    """Distance from the days before, between 0 and 1: KS of numbers, total variation of text."""
    warns: bool
    """Whether values or missing values shifted by more than chance and `BUDGET` explain."""


@dataclass(frozen=True, kw_only=True)
class SourceProfile:
    """The newest days of a source against the days before."""

    source: str
    since: str
    until: str
    rows: int
    against_days: int
    against_rows: int
    days: dict[str, int]
    """Date → rows."""
    columns: list[ColumnProfile]
    findings: tuple[Finding, ...]


def cases(held: Quarantine, principal: Principal, *, source: str | None = None, settled: bool = False) -> list[Case]:
    """Return what is held, without any value; needs `data:read`."""
    principal.require("data", "read")
    return held.cases(source, settled=settled)


def case(
    held: Quarantine, source_of: dict[str, EventSource], principal: Principal, batch: str, source: str | None
) -> Case:
    """Return one case; its example values only to a purpose for which its source may be read. Needs `data:read`."""
    principal.require("data", "read")
    found = held.find(batch, source)
    if found.source in source_of and principal.purpose in source_of[found.source].purposes:
        return found
    findings = tuple(
        msgspec.structs.replace(finding, example=WITHHELD if finding.example else "")
        for finding in found.report.findings
    )
    return msgspec.structs.replace(found, report=msgspec.structs.replace(found.report, findings=findings))


def release(
    at: Installation, principal: Principal, batch: str, *, source: str | None, reason: str, keep_known_time: bool
) -> Case:
    """Ingest a held batch, as `decisions.release`, under the platform's own identity; the audit names the person."""
    principal.require("quality", "write")
    held = at.quality.quarantine
    found = held.find(batch, source)
    definition = source_named(at.project, found.source)
    return decisions.release(
        found,
        held,
        lambda rows: _ingest(at, definition, rows, found.batch),
        at.clock,
        principal=principal,
        audit=at.audit,
        reason=reason,
        keep_known_time=keep_known_time,
    )


def profile(at: Installation, principal: Principal, source: str, *, days: int = 1, against: int = 28) -> SourceProfile:
    """Compare the newest days of a source with the days before them, on counts alone; needs `data:read`.

    NotFound where nothing was counted.
    """
    principal.require("data", "read")
    definition = source_named(at.project, source)
    if days < 1 or against < 1:
        raise InvalidValue("--days", f"{days} against {against}", hint="1 or more of both")
    if at.quality.profiles is None:
        raise NotFound("profile of source", source)
    known = at.quality.profiles.days(definition)
    if not known:
        raise NotFound("ingested row of source", source)
    first = known[-1].day - days + 1
    recent = [day for day in known if day.day >= first]
    before = [day for day in known if first - against <= day.day < first]
    return compare(definition, recent, before)


def compare(source: EventSource, recent: list[DayCounts], before: list[DayCounts]) -> SourceProfile:
    """Return how recent days differ from those before."""
    bins = layout(source)
    empty = np.zeros(bins.bins, np.int64)
    now, then = (sum((day.counts for day in days), empty) for days in (recent, before))
    counted = bins.split(then)
    reference = reference_of(
        msgspec.structs.replace(
            bins, columns=[msgspec.structs.replace(c, counts=counted[c.name].tolist()) for c in bins.columns]
        ),
        version="",
        profile_sha256=bins.sha256(),
    )
    texts = tuple(name for name, dtype in source.columns.items() if dtype == "string")
    monitor = Monitor(use_case=source.name, categorical=texts)
    alpha = BUDGET.alpha(len(recent) * DAY)
    findings = judge(reference, now, monitor=monitor, budget=BUDGET, alpha=alpha)
    columns = [
        _column(c, counts, findings, c.name in texts)
        for c, counts in zip(bins.columns, bins.split(now).values(), strict=True)
    ]
    return SourceProfile(
        source=source.name,
        since=_date(recent[0].day),
        until=_date(recent[-1].day),
        rows=sum(day.rows for day in recent),
        against_days=len(before),
        against_rows=sum(day.rows for day in before),
        days={_date(day.day): day.rows for day in [*before, *recent]},
        columns=columns,
        findings=findings,
    )


def _ingest(at: Installation, source: EventSource, rows: pa.Table, batch: str) -> int:
    views = views_of(at, source)
    return ingest_rows(
        at,
        source,
        rows,
        views,
        batch,
        principal=at.workload("headway-quality", [f"ingest:{source.name}"], "platform_operations"),
        quality=dataclasses.replace(at.quality, approved=True),
        watermark=_watermark(at, views),
    ).snapshot_id


def _watermark(at: Installation, views: Sequence[View]) -> int:
    """Return how far all views are complete: a released batch says nothing about what else was known by now."""
    try:
        return min((at.online.watermark(view) for view in views), default=0)
    except Unavailable:
        return 0


def _column(column: BinnedColumn, counts: np.ndarray, findings: tuple[Finding, ...], text: bool) -> ColumnProfile:
    own = [finding for finding in findings if finding.feature == column.name]
    there = int(counts[:-1].sum())
    ends = [*column.edges, float("inf")]
    reached = np.searchsorted(np.cumsum(counts[:-1]), np.ceil(np.array([0.05, 0.5, 0.95]) * there))
    low, median, high = (None if text or not there or np.isinf(ends[i]) else ends[i] for i in reached.tolist())
    return ColumnProfile(
        column=column.name,
        missing=float(counts[-1]) / max(1, int(counts.sum())),
        low=low,
        median=median,
        high=high,
        shift=max(finding.effect.value for finding in own if finding.part == "values"),
        warns=any(finding.alarmed for finding in own),
    )


def _date(day: int) -> str:
    return format_time(day * DAY)[:10]
