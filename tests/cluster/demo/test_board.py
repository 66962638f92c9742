from __future__ import annotations

import io
from dataclasses import dataclass

import msgspec
from rich.console import Console

from headway.cluster.demo.board import draw
from headway.governance.report import Report
from tests.cluster.demo.test_report import ENTRY

LINE = "curl -s http://127.0.0.1:8000/churn/v1/decisions " + "-H 'content-type: application/json' " * 10


@dataclass(frozen=True)
class Drawn:
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def drawn(report: Report, *lines: str, width: int = 100) -> Drawn:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    draw(report, lines, console)
    assert isinstance(console.file, io.StringIO)
    return Drawn(console.file.getvalue())


def report(**entries: object) -> Report:
    return msgspec.convert({"use_cases": entries, "environment": {}, "versions": {}}, Report, from_attributes=True)


def test_each_clause_has_its_target_measure_and_verdict() -> None:
    text = drawn(report(churn=ENTRY)).text
    assert "churn" in text
    (line,) = (line for line in text.splitlines() if "latency.p99_ms" in line)
    for part in ("≤ 45", "12.35 ms", "pass", "1,000"):
        assert part in line
    assert "not shown" in text
    assert "<script>: a & b" in text


def test_the_lines_to_copy_are_never_wrapped() -> None:
    assert LINE.rstrip() in [line.rstrip() for line in drawn(report(churn=ENTRY), LINE, width=60).lines]


def test_brackets_in_a_line_are_not_markup() -> None:
    assert "[bold]x[/bold]" in drawn(report(churn=ENTRY), "[bold]x[/bold]").text


def test_use_cases_come_in_order_and_drift_is_told() -> None:
    changed = msgspec.structs.replace(ENTRY, drift={"seconds to alarm": 3.5}, velocity={"events": 10})
    text = drawn(report(fraud=changed, churn=ENTRY)).text
    assert text.index("churn: the contract") < text.index("fraud: the contract")
    assert "drift · seconds to alarm: 3.5" in text
    assert "velocity · events: 10" in text
