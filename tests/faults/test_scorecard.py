from __future__ import annotations

import re

import pytest

from tests.faults.scorecard import PAGE, ROOT, Row, Served, record, record_served, render, stored


def test_the_page_shows_the_stored_rows() -> None:
    assert PAGE.read_text() == render(stored()), "run python -m tests.faults.scorecard: it writes the page"


def test_every_fault_test_has_its_rows() -> None:
    """One that was added and never run for the page is noticed."""
    shown = {row.test.partition("[")[0] for row in stored()}
    there = {
        f"{path.relative_to(ROOT)}::{name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for text in [path.read_text()]
        if "import Record, record" in text
        for name in re.findall(r"^def (test_\w+)\([^)]*record_property", text, re.MULTILINE)
    }
    assert shown == there


def test_a_loss_fails_the_test() -> None:
    kept: dict[str, object] = {}
    for lost, twice in ((1, 0), (0, 1)):
        with pytest.raises(AssertionError):
            record(
                kept.__setitem__, area="a", fault="f", done="d", sent=9, unit="u", lost=lost, twice=twice, seconds=1.0
            )


def test_more_failures_than_allowed_fail_the_test() -> None:
    kept: dict[str, object] = {}
    record_served(kept.__setitem__, fault="f", done="d", sent=9, failed=1, allowed=1)
    with pytest.raises(AssertionError):
        record_served(kept.__setitem__, fault="f", done="d", sent=9, failed=1)


def test_requests_have_columns_of_their_own() -> None:
    rows = [
        Served(fault=f, done="d", sent=1_000, failed=n, allowed=n, degraded=2, seconds=1.25, within_s=w)
        for f, n, w in (("b", 0, None), ("a", 3, 10.0), ("a2", 0, 1.0))
    ]
    lines = [line for line in render(rows).splitlines() if line.startswith(("##", "| a", "| b"))]
    assert lines == [
        "## serving",
        "| a | d | 1,000 | 3 (≤ 3) | 2 | 1.2 s (≤ 10 s) |",
        "| a2 | d | 1,000 | 0 | 2 | 1.2 s (≤ 1 s, missed) |",
        "| b | d | 1,000 | 0 | 2 |  |",
    ]


def test_rows_are_shown_by_area() -> None:
    rows = [
        Row(area=area, fault=fault, done="d", sent=1_000, unit="events", lost=0, twice=0, seconds=1.25)
        for area, fault in (("streams", "b"), ("lake", "z"), ("streams", "a"))
    ]
    lines = [line for line in render(rows).splitlines() if line.startswith(("##", "| a", "| b", "| z"))]
    assert lines == [
        "## lake", "| z | d | 1,000 events | 0 | 0 | 1.2 s |",
        "## streams", "| a | d | 1,000 events | 0 | 0 | 1.2 s |", "| b | d | 1,000 events | 0 | 0 | 1.2 s |",
    ]  # fmt: skip
