"""Draws the scoreboard on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from headway.governance.report import Report

_COLOURS = {"pass": "green", "miss": "bold red", "not shown": "dim"}


def draw(report: Report, lines: tuple[str, ...], console: Console | None = None) -> None:
    """Print one table per use case, then the lines, which are never wrapped so that they can be copied."""
    console = console or Console(highlight=False)
    for use_case, entry in sorted(report.use_cases.items()):
        board = Table(title=f"{use_case}: the contract and what was measured", title_justify="left")
        for name in ("clause", "target", "measured", "verdict", "n"):
            board.add_column(name, overflow="fold", justify="right" if name == "n" else "left")
        for clause in entry.clauses:
            measured = _number(clause.measured)
            board.add_row(
                clause.clause,
                str(clause.target),
                f"{measured} {clause.unit}".strip(),
                f"[{_COLOURS[clause.verdict]}]{clause.verdict}[/]",
                f"{clause.n:,}",
            )
        console.print(board)
        for clause in entry.clauses:
            if clause.note:
                console.print(f"  {clause.clause}: {clause.note}", markup=False, style="dim", soft_wrap=True)
        for scene, facts in (("velocity", entry.velocity), ("drift", entry.drift)):
            for name, value in (facts or {}).items():
                console.print(f"  {scene} · {name}: {value}", markup=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.4g}"
    return f"{value:,.0f}" if isinstance(value, float | int) else str(value)
