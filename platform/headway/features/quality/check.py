"""Checks a batch against what its source expects: one pure function for files, ingestion and streams."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.times import EVENT_TIME, KNOWN_TIME, format_duration
from headway.features.arrow import conform, whole
from headway.features.definitions import EventSource
from headway.features.quality.expectations import Expectation, Kind, Severity
from headway.features.quality.rows import beyond, broken, flagged, late

_SHOWN = 100
Worst = tuple[int | None, str]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one expectation found in a batch."""

    expectation: str
    columns: tuple[str, ...]
    severity: str
    breaches: int
    """Rows that break it, counted exactly."""
    allowed: int
    """So many may."""
    passed: bool
    row: int | None = None
    """The worst row: farthest outside, latest, or of the value that breaks it most often; None: none or the batch."""
    example: str = ""
    """Its value, printable."""


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found."""

    source: str
    rows: int
    findings: tuple[Finding, ...]

    @property
    def rejected(self) -> tuple[Finding, ...]:
        """Broken expectations that stop the batch."""
        return tuple(f for f in self.findings if not f.passed and f.severity == Severity.REJECT)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line per broken expectation that only warns."""
        return tuple(self.line(f) for f in self.findings if not f.passed and f.severity == Severity.WARN)

    def line(self, finding: Finding) -> str:
        """Return what an expectation found, without any value of the data."""
        if finding.row is None:
            return f"{finding.expectation}: the batch has {self.rows:,} rows"
        share = 100 * finding.breaches / self.rows
        allowed = f", {finding.allowed:,} allowed" if finding.allowed else ""
        return (
            f"{finding.expectation}: {finding.breaches:,} of {self.rows:,} rows ({share:.3g} %) break it{allowed}, "
            f"worst is row {finding.row}"
        )


def check(source: EventSource, table: pa.Table) -> QualityReport:
    """Return what the source's expectations find in a batch; InvalidValue where it does not have the source's columns.

    Rows are numbered from 0. The same table gives the same report, however it is chunked.
    """
    events = conform(source, table)
    findings = tuple(_finding(expectation, source, events) for expectation in source.expectations)
    return QualityReport(source=source.name, rows=events.num_rows, findings=findings)


def _finding(expectation: Expectation, source: EventSource, events: pa.Table) -> Finding:
    passed = True
    if expectation.kind is Kind.ROWS_PER_BATCH:
        low, high = expectation.low or 0, math.inf if expectation.high is None else expectation.high
        passed = low <= events.num_rows <= high
        breaches, (row, example) = 0, (None, "" if passed else f"{events.num_rows} rows")
    elif expectation.kind is Kind.UNIQUE:
        breaches, (row, example) = _repeated(events, expectation.columns)
    elif expectation.kind is Kind.KNOWN_WITHIN:
        breaches, (row, example) = _late(events, int(expectation.high or 0))
    else:
        column = whole(events[expectation.columns[0]])
        dtype = source.columns[expectation.columns[0]]
        breaches, (row, example) = _values(expectation, column, dtype)
    allowed = expectation.allowed(events.num_rows)
    return Finding(
        expectation=expectation.name,
        columns=expectation.columns,
        severity=expectation.severity.value,
        breaches=breaches,
        allowed=allowed,
        passed=passed and breaches <= allowed,
        row=row,
        example=example,
    )


def _values(expectation: Expectation, column: pa.Array, dtype: str) -> tuple[int, Worst]:
    if expectation.kind is Kind.NOT_NULL:
        missing = broken(expectation, column, dtype)
        return int(missing.sum()), _first(missing, "missing")
    if expectation.kind is Kind.BETWEEN:
        return _outside(column, expectation.low, expectation.high, dtype)
    strange = column.filter(pa.array(broken(expectation, column, dtype)))
    if not len(strange):
        return 0, (None, "")
    counts = strange.value_counts()
    numbers = counts.field("counts").to_numpy()
    most = counts.field("values")[int(numbers.argmax())]
    return len(strange), (pc.index(column, most).as_py(), _shown(most.as_py()))


def _outside(column: pa.Array, low: float | None, high: float | None, dtype: str) -> tuple[int, Worst]:
    below, above = beyond(column, low, dtype, under=True), beyond(column, high, dtype, under=False)
    breaches = int((below | above).sum())
    if not breaches:
        return 0, (None, "")
    candidates = []
    for flags, bound, best in ((below, low, pc.min), (above, high, pc.max)):
        if bound is not None and flags.any():
            value = best(column.filter(pa.array(flags)))
            distance = abs(value.as_py() - (bound if dtype != "float32" else float(np.float32(bound))))
            candidates.append((-distance, pc.index(column, value).as_py(), value.as_py()))
    _, row, value = min(candidates)
    return breaches, (row, _shown(value))


def _repeated(events: pa.Table, names: tuple[str, ...]) -> tuple[int, Worst]:
    keys = events.select(list(names))
    there = np.ones(events.num_rows, np.bool_)
    for name in names:
        there &= flagged(pc.is_valid(whole(keys[name])))
    rows = np.flatnonzero(there)
    labelled = keys.take(pa.array(rows)).append_column("", pa.array(rows))
    groups = labelled.group_by(list(names), use_threads=False).aggregate([("", "count"), ("", "min")])
    repeats = len(rows) - groups.num_rows
    if not repeats:
        return 0, (None, "")
    counts, first = groups["_count"].to_numpy(), groups["_min"].to_numpy()
    worst = int(np.lexsort((first, -counts))[0])
    key = [groups[name][worst] for name in names]
    same = there
    for name, value in zip(names, key, strict=True):
        same &= flagged(pc.equal(whole(keys[name]), value))
    return repeats, (int(np.flatnonzero(same)[1]), ", ".join(_shown(value.as_py()) for value in key))


def _late(events: pa.Table, within: int) -> tuple[int, Worst]:
    rows = np.flatnonzero(late(events, within))
    if not len(rows):
        return 0, (None, "")
    known, happened = (whole(events[name]).to_numpy()[rows].view(np.uint64) for name in (KNOWN_TIME, EVENT_TIME))
    delays = known - happened  # exact: known is the later one
    worst = int(delays.argmax())
    return len(rows), (int(rows[worst]), format_duration(int(delays[worst])))


def _first(flags: npt.NDArray[np.bool_], text: str) -> Worst:
    return (int(flags.argmax()), text) if flags.any() else (None, "")


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN]
