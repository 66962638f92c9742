"""What a data scientist expects of a source's batches, written as `between("amount", 0, 10_000, tolerance=0.01)`.

An expectation is a plain value. A missing value breaks `not_null` only: the others judge what is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from headway.core.errors import DefinitionError, names_near
from headway.core.times import format_duration, parse_duration

Value = int | str | bool
_NUMBERS = ("int64", "float32", "float64")
_EXACT = ("int64", "string", "bool")
_TYPES = {"int64": int, "string": str, "bool": bool}
_WEEK, _MOST = 7, 56
_FLOAT32_MAX = 3.4028234663852886e38


class Kind(StrEnum):
    """What is expected."""

    NOT_NULL = "not_null"
    BETWEEN = "between"
    ONE_OF = "one_of"
    UNIQUE = "unique"
    KNOWN_WITHIN = "known_within"
    ROWS_PER_BATCH = "rows_per_batch"
    USUAL_VOLUME = "usual_volume"


class Severity(StrEnum):
    """What happens to a batch that breaks an expectation."""

    REJECT = "reject"
    """It is quarantined whole."""
    WARN = "warn"
    """It is ingested, and the report says so."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One expectation; the functions below write it: `not_null`, `between`, `one_of` and the others."""

    kind: Kind
    columns: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    """Bounds, both inclusive; None: open. Of `known_within`, microseconds; of `usual_volume`, deviations."""
    values: tuple[Value, ...] = ()
    tolerance: float = 0.0
    """Share of a batch's rows that may break it."""
    days: int = 0
    """Of `usual_volume`: days that have to be known before one is judged."""
    severity: Severity = Severity.REJECT

    def __post_init__(self) -> None:
        """Refuse a tolerance that is no share, and bounds that nothing can lie between."""
        if not 0 <= self.tolerance < 1:
            raise DefinitionError(
                f"{self.tolerance} is no tolerance", field=f"{self.name}.tolerance", expected="a share of rows, below 1"
            )
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if self.kind in (Kind.BETWEEN, Kind.ROWS_PER_BATCH) and not bounds:
            raise DefinitionError("both bounds are open", field=self.name, expected="a lower or an upper bound")
        if any(not math.isfinite(bound) for bound in bounds) or sorted(bounds) != bounds:
            raise DefinitionError("nothing lies between the bounds", field=self.name, expected="finite low ≤ high")
        if self.kind is Kind.ONE_OF and not self.values:
            raise DefinitionError("no value is allowed", field=self.name, expected="the values that may come")
        if self.kind is Kind.USUAL_VOLUME and (not self.high or self.high <= 0 or not _WEEK <= self.days <= _MOST):
            raise DefinitionError(
                f"{self.high} deviations, {self.days} days",
                field=self.name,
                expected=f"more than 0 deviations, {_WEEK} to {_MOST} days",
            )
        if self.kind is Kind.UNIQUE and not self.columns:
            raise DefinitionError("no column", field=self.name, expected="the columns of the key")

    @property
    def name(self) -> str:
        """The expectation as it is written: `between(amount, 0, 10000)`."""
        parts: list[object] = list(self.columns)
        if self.kind is Kind.KNOWN_WITHIN:
            parts.append(format_duration(int(self.high or 0)))
        elif self.kind in (Kind.BETWEEN, Kind.ROWS_PER_BATCH):
            parts += [self.low, self.high]
        elif self.kind is Kind.USUAL_VOLUME:
            parts += [self.high, self.days]
        return f"{self.kind.value}({', '.join(str(part) for part in [*parts, *self.values])})"

    def allowed(self, rows: int) -> int:
        """Return how many of a batch's rows may break it; the tolerance counts as the decimal that was written."""
        return math.floor(Fraction(str(self.tolerance)) * rows)

    def require_columns(self, columns: Mapping[str, str], *, field: str) -> None:
        """Raise DefinitionError where a column is missing, or its dtype is not one that can be judged so."""
        judged = {Kind.BETWEEN: _NUMBERS, Kind.ONE_OF: _EXACT, Kind.UNIQUE: (*_EXACT, "timestamp")}.get(self.kind)
        for column in self.columns:
            if column not in columns:
                near = names_near(column, columns)
                raise DefinitionError(f"{self.name}: the source has no column {column!r}{near}", field=field)
            dtype = columns[column]
            if judged is not None and dtype not in judged:
                raise DefinitionError(
                    f"{self.name}: {column!r} is {dtype}", field=field, expected=f"a column of {', '.join(judged)}"
                )
            bounds = [bound for bound in (self.low, self.high) if bound is not None]
            if dtype == "float32" and any(abs(bound) > _FLOAT32_MAX for bound in bounds):
                raise DefinitionError(f"{self.name}: no float32 is so large", field=field, expected="None")
            for value in self.values:
                if type(value) is not _TYPES[dtype]:
                    raise DefinitionError(f"{self.name}: {value!r} is no {dtype}", field=field, expected=dtype)
        if len(set(self.columns)) != len(self.columns):
            raise DefinitionError(f"{self.name}: a column comes twice", field=field, expected="each column once")


def not_null(column: str, *, tolerance: float = 0.0, severity: Severity = Severity.REJECT) -> Expectation:
    """Expect a value in every row; NaN is none."""
    return Expectation(kind=Kind.NOT_NULL, columns=(column,), tolerance=tolerance, severity=severity)


def between(
    column: str,
    low: float | None,
    high: float | None,
    *,
    tolerance: float = 0.0,
    severity: Severity = Severity.REJECT,
) -> Expectation:
    """Expect numbers in [low, high]; None leaves a side open. A bound counts as the column's dtype would hold it."""
    return Expectation(kind=Kind.BETWEEN, columns=(column,), low=low, high=high, tolerance=tolerance, severity=severity)


def one_of(
    column: str, values: tuple[Value, ...], *, tolerance: float = 0.0, severity: Severity = Severity.REJECT
) -> Expectation:
    """Expect one of some categories."""
    return Expectation(
        kind=Kind.ONE_OF, columns=(column,), values=tuple(values), tolerance=tolerance, severity=severity
    )


def unique(*columns: str, tolerance: float = 0.0, severity: Severity = Severity.REJECT) -> Expectation:
    """Expect each key once within a batch; counted are the rows after the first of a key, without keys with a null."""
    return Expectation(kind=Kind.UNIQUE, columns=columns, tolerance=tolerance, severity=severity)


def known_within(delay: str, *, tolerance: float = 0.0, severity: Severity = Severity.REJECT) -> Expectation:
    """Expect events to be known at most so long after they happened: `10m`."""
    return Expectation(
        kind=Kind.KNOWN_WITHIN,
        high=parse_duration(delay, field="known_within"),
        tolerance=tolerance,
        severity=severity,
    )


def rows_per_batch(low: int | None, high: int | None, *, severity: Severity = Severity.REJECT) -> Expectation:
    """Expect a batch of so many rows; None leaves a side open."""
    return Expectation(kind=Kind.ROWS_PER_BATCH, low=low, high=high, severity=severity)


def usual_volume(deviations: float = 5.0, *, days: int = 14, severity: Severity = Severity.WARN) -> Expectation:
    """Expect of each day (UTC, of known_time) as many rows as its weekday usually brings, as `features.quality.volume`.

    Too many are seen with the batch that brings them, too few with one that comes when the day is over. Nothing is
    judged before so many `days` are known.
    """
    return Expectation(kind=Kind.USUAL_VOLUME, high=deviations, days=days, severity=severity)
