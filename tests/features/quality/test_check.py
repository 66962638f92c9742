"""The check against a loop over rows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import InvalidValue
from headway.features.definitions import EventSource
from headway.features.quality.check import check
from headway.features.quality.expectations import (
    Expectation,
    Kind,
    Severity,
    between,
    known_within,
    not_null,
    one_of,
    rows_per_batch,
    unique,
)

SOURCE = EventSource(
    name="sales",
    columns={
        "id": "int64",
        "shop": "int64",
        "price": "float32",
        "weight": "float64",
        "number": "int64",
        "channel": "string",
        "paid": "bool",
    },
    id="id",
    bucket_by="shop",
)
INT64 = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(-3, 3)
FLOATS = st.sampled_from([-2.0, -0.1, -0.0, 0.0, 0.1, 0.3, 1e9, float("inf"), float("-inf"), float("nan")])
ROW = st.fixed_dictionaries(
    {
        "id": SMALL,
        "shop": st.just(1),
        "price": st.none() | FLOATS,
        "weight": st.none() | FLOATS,
        "number": st.none() | SMALL | INT64,
        "channel": st.none() | st.sampled_from(["web", "shop", "", "wéb"]),
        "paid": st.none() | st.booleans(),
        "event_time": st.integers(0, 9) | INT64,
        "known_time": st.integers(0, 9) | INT64,
    }
)
BOUND = (
    st.integers(-3, 3) | st.sampled_from([-0.1, 0.1, 0.3, 2.5, -2.5]) | st.sampled_from([-(2.0**70), 2.0**70, 2**63])
)


@st.composite
def expectations(draw: st.DrawFn) -> Expectation:
    tolerance = draw(st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.999]))
    severity = draw(st.sampled_from(list(Severity)))
    how: dict[str, Any] = {"tolerance": tolerance, "severity": severity}
    kind = draw(st.sampled_from(list(Kind)))
    if kind is Kind.NOT_NULL:
        return not_null(draw(st.sampled_from(list(SOURCE.columns))), **how)
    if kind is Kind.BETWEEN:
        low, high = sorted((draw(BOUND), draw(BOUND)))
        column = draw(st.sampled_from(["price", "weight", "number"]))
        low_open, high_open = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
        return between(column, None if low_open else low, None if high_open else high, **how)
    if kind is Kind.ONE_OF:
        values: dict[str, tuple[int | str, ...]] = {"channel": ("web", ""), "number": (1, 2), "paid": (True,)}
        name = draw(st.sampled_from(list(values)))
        return one_of(name, values[name], **how)
    if kind is Kind.UNIQUE:
        return unique(*draw(st.sampled_from([("id",), ("channel",), ("id", "channel"), ("paid", "number")])), **how)
    if kind is Kind.KNOWN_WITHIN:
        return known_within(draw(st.sampled_from(["0us", "3us", "10m"])), **how)
    return rows_per_batch(draw(st.integers(0, 4)), draw(st.none() | st.integers(4, 9)), severity=severity)


def breaking(expectation: Expectation, rows: list[dict[str, Any]]) -> list[int]:
    """The rows that break an expectation, by its definition."""
    found, seen = [], set()
    for number, row in enumerate(rows):
        values = [row[name] for name in expectation.columns]
        missing = any(value is None or value != value for value in values)
        if expectation.kind is Kind.NOT_NULL:
            broken = missing
        elif expectation.kind is Kind.KNOWN_WITHIN:
            broken = row["known_time"] - row["event_time"] > (expectation.high or 0)
        elif missing or expectation.kind is Kind.ROWS_PER_BATCH:
            broken = False
        elif expectation.kind is Kind.ONE_OF:
            broken = values[0] not in expectation.values
        elif expectation.kind is Kind.UNIQUE:
            broken = tuple(values) in seen
            seen.add(tuple(values))
        else:
            low, high = expectation.low, expectation.high
            if expectation.columns == ("price",):
                low, high = (None if bound is None else float(np.float32(bound)) for bound in (low, high))
            broken = (low is not None and values[0] < low) or (high is not None and values[0] > high)
        if broken:
            found.append(number)
    return found


def table(rows: list[dict[str, Any]], pieces: int = 1) -> pa.Table:
    types = {"int64": pa.int64(), "float32": pa.float32(), "float64": pa.float64(), "string": pa.string()}
    types["bool"] = pa.bool_()
    fields = [(name, types[dtype]) for name, dtype in SOURCE.columns.items()]
    schema = pa.schema([*fields, ("event_time", pa.int64()), ("known_time", pa.int64())])
    if pieces == 1:
        return pa.Table.from_pylist(rows, schema)
    cut = len(rows) // pieces
    return pa.concat_tables([table(rows[:cut]), table(rows[cut:])])


def float32(row: dict[str, Any]) -> dict[str, Any]:
    price = row["price"]
    return {**row, "price": None if price is None else float(np.float32(price))}


@settings(deadline=None)
@given(st.lists(ROW, max_size=12), st.lists(expectations(), max_size=5))
def test_counts_agree_with_a_loop_over_rows(rows: list[dict[str, Any]], promised: list[Expectation]) -> None:
    rows = [float32(row) for row in rows]
    source = dataclasses.replace(SOURCE, expectations=tuple(promised))
    report = check(source, table(rows))
    assert report == check(source, table(rows, 2)), "chunks are no matter"
    for expectation, finding in zip(promised, report.findings, strict=True):
        broken = breaking(expectation, rows)
        assert finding.breaches == len(broken)
        if expectation.kind is Kind.ROWS_PER_BATCH:
            high = expectation.high
            assert finding.passed == ((expectation.low or 0) <= len(rows) and (high is None or len(rows) <= high))
            continue
        assert finding.passed == (Fraction(len(broken)) <= Fraction(str(expectation.tolerance)) * len(rows))
        assert (finding.row in broken) if broken else (finding.row is None)
    assert len(report.rejected) + len(report.warnings) == sum(not finding.passed for finding in report.findings)


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=12))
def test_the_worst_row_is_the_farthest_the_latest_or_the_most_frequent(rows: list[dict[str, Any]]) -> None:
    promised = (between("number", 0, 2), known_within("1us"), one_of("channel", ("web",)), unique("id"))
    far, late, strange, twice = check(dataclasses.replace(SOURCE, expectations=promised), table(rows)).findings
    if far.row is not None:
        distance = [max(-row["number"], row["number"] - 2) if row["number"] is not None else 0 for row in rows]
        assert far.row == distance.index(max(distance))
    if late.row is not None:
        delay = [row["known_time"] - row["event_time"] for row in rows]
        assert late.row == delay.index(max(delay))
    if strange.row is not None:
        counts = Counter(row["channel"] for row in rows if row["channel"] not in (None, "web"))
        assert counts[rows[strange.row]["channel"]] == max(counts.values())
        assert strange.example == repr(rows[strange.row]["channel"])
    if twice.row is not None:
        ids = [row["id"] for row in rows]
        assert ids[: twice.row].count(ids[twice.row]) == 1
        assert ids.count(ids[twice.row]) == max(Counter(ids).values())


def a_row(**changed: Any) -> dict[str, Any]:
    row = {"id": 1, "shop": 1, "price": 1.0, "weight": 1.0, "number": 1, "channel": "web", "paid": True}
    return {**row, "event_time": 0, "known_time": 0, **changed}


def test_a_bound_is_what_its_column_would_hold() -> None:
    promised = (between("price", None, 0.1), between("weight", None, 0.1))
    rows = [a_row(price=0.1, weight=0.1), a_row(price=0.100001, weight=0.100001)]
    report = check(dataclasses.replace(SOURCE, expectations=promised), table(rows))
    assert [(finding.breaches, finding.row) for finding in report.findings] == [(1, 1), (1, 1)]


def test_a_tolerance_is_the_decimal_that_was_written() -> None:
    assert 0.29 * 100 < 29, "what floating point makes of it"
    for broken, passes in (29, True), (30, False):
        rows = [a_row(number=None if row < broken else 1) for row in range(100)]
        promised = (not_null("number", tolerance=0.29),)
        assert check(dataclasses.replace(SOURCE, expectations=promised), table(rows)).findings[0].passed == passes


def test_what_is_said_of_a_batch_has_no_value_in_it() -> None:
    promised = (one_of("channel", ("web",), severity=Severity.WARN), rows_per_batch(2, None))
    report = check(dataclasses.replace(SOURCE, expectations=promised), table([a_row(channel="\x1b[2Jsecret")]))
    assert report.warnings == ("one_of(channel, web): 1 of 1 rows (100 %) break it, worst is row 0",)
    assert report.line(report.rejected[0]) == "rows_per_batch(2, None): the batch has 1 rows"
    assert report.findings[0].example == "'\\x1b[2Jsecret'", "nothing that a terminal would obey"


def test_a_table_without_a_column_is_no_batch() -> None:
    with pytest.raises(InvalidValue, match="events of sales need this column"):
        check(SOURCE, table([a_row()]).drop_columns("price"))
