"""`docs/benchmarks.md`: the stored results as a page, written anew whenever one of them is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.harness import Bar, Report, Result

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
_HEAD = """# Benchmarks

Generated from `benchmarks/results/` by `python -m benchmarks NAME --json benchmarks/results/NAME.json`; do not edit.
Medians with their range over the runs. The machines are small and shared: read ratios within one run, not times.
"""


def page(folder: Path = RESULTS) -> str:
    """Return the page of all results in a folder."""
    reports = [msgspec.json.decode(path.read_bytes(), type=Report) for path in sorted(folder.glob("*.json"))]
    return "\n".join([_HEAD, *(line for report in reports for line in _section(report))])


def write() -> None:
    """Write the page."""
    PAGE.write_text(page())


def _section(report: Report) -> Iterator[str]:
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report.machine.items())
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield f"## {report.name.replace('_', ' ')}\n"
    yield f"{machine}; {versions}\n"
    yield "| bar | measured | must be | |"
    yield "|---|---|---|---|"
    yield from (_bar(bar) for bar in report.bars)
    yield "\n| system | case | metric | median | range | runs |"
    yield "|---|---|---|---|---|---|"
    yield from (_result(result) for result in report.results)
    yield ""


def _bar(bar: Bar) -> str:
    sign = "≥" if bar.direction == ">=" else "≤"
    verdict = "holds" if bar.holds else "**missed**"
    return f"| {bar.what} | {bar.measured:.4g} {bar.unit} | {sign} {bar.bar:g} | {verdict} |"


def _result(result: Result) -> str:
    spread = f"{result.min:.4g} to {result.max:.4g}"
    value = f"{result.median:.4g} {result.unit}"
    return f"| {result.system} | {result.case} | {result.metric} | {value} | {spread} | {result.runs} |"
