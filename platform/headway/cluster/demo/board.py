"""Draws the scoreboard on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from headway.governance.report import Report

_COLOURS = {"pass": "green", "miss": "bold red", "not shown": "dim"}


def draw(report: Report, lines: tuple[str, ...], console: Console | None = None) -> None:
    """Print one table per use case, then the lines, which are never wrapped so that they can be copied."""
    console = console or Console(highlight=False)
    for use_case, entry in sorted(report.use_cases.items()):
        board = Table(title=f"{use_case}: the contract and what was measured", title_justify="left")
        for name in ("clause", "target", "measured", "verdict", "n", ""):
            board.add_column(name, overflow="fold")
        for clause in entry.clauses:
            measured = f"{clause.measured:,.4g}" if isinstance(clause.measured, float) else str(clause.measured or "")
            board.add_row(
                clause.clause,
                str(clause.target),
                f"{measured} {clause.unit}".strip(),
                f"[{_COLOURS[clause.verdict]}]{clause.verdict}[/]",
                f"{clause.n:,}",
                clause.note,
            )
        console.print(board)
        for name, value in (entry.drift or {}).items():
            console.print(f"  drift · {name}: {value}", markup=False)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
