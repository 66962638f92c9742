"""The demo's report (INTERFACES §8): one JSON file for machines, the same as a page for people."""

from __future__ import annotations

import html
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.core.errors import CorruptState
from headway.governance.report import LatencyQuantiles, Report, UseCaseReport

_PACKAGES = ("ray", "xgboost", "feast", "mlflow", "pyiceberg", "pyarrow", "redis", "onnxruntime", "numpy")
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.6rem}h2{margin-top:2.5rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #e3e7ee;font-variant-numeric:tabular-nums}
.pass{color:#0a7a3f}.miss{color:#b3261e;font-weight:600}.not{color:#6b7280}svg{width:100%;height:9rem}
small{color:#6b7280}
"""


def environment() -> dict[str, Any]:
    """Return what the figures depend on: cores, memory, Python, system."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def latency_summary(latencies_ms: list[float]) -> tuple[LatencyQuantiles, tuple[int, ...]]:
    """Return p50, p95, p99 and counts per millisecond up to 60 ms."""
    if not latencies_ms:
        return LatencyQuantiles(p50=None, p95=None, p99=None), ()
    values = np.asarray(latencies_ms)
    p50, p95, p99 = (round(float(np.percentile(values, q)), 3) for q in (50, 95, 99))
    bins = np.bincount(np.minimum(values, 60).astype(int), minlength=61)
    return LatencyQuantiles(p50=p50, p95=p95, p99=p99), tuple(bins.tolist())


def load_report(path: Path) -> Report:
    """Return the report on disk, or an empty one."""
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=Report)
        except msgspec.MsgspecError as error:
            raise CorruptState(f"{path} is not a report: {error}", hint="move the file away") from None
    return Report(use_cases={}, environment={}, versions={})


def save_report(path: Path, use_case: str, entry: UseCaseReport) -> Report:
    """Put one use case's entry into the report, and write the page beside it."""
    report = Report(
        use_cases=load_report(path).use_cases | {use_case: entry},
        environment=environment(),
        versions={name: version(name) for name in _PACKAGES},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    path.with_suffix(".html").write_text(render_page(report), encoding="utf-8")
    return report


def render_page(report: Report) -> str:
    """Return the report as one self-contained HTML page."""
    sections = "".join(_section(name, entry) for name, entry in sorted(report.use_cases.items()))
    facts = " · ".join(f"{html.escape(str(k))} {html.escape(str(v))}" for k, v in report.environment.items())
    pins = " · ".join(f"{html.escape(k)} {html.escape(v)}" for k, v in report.versions.items())
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Headway demo report</title><style>{_STYLE}</style><h1>The contracts and what was measured</h1>"
        f"<p><small>{facts}<br>{pins}</small></p>{sections}</html>"
    )


def _section(name: str, entry: UseCaseReport) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(c.clause)}</td><td>{html.escape(c.target)}</td><td>{_number(c.measured)} "
        f"{html.escape(c.unit)}</td><td class='{c.verdict.split()[0]}'>{c.verdict}</td><td>{c.n:,}</td>"
        f"<td><small>{html.escape(c.note)}</small></td></tr>"
        for c in entry.clauses
    )
    stages = "".join(f"<tr><td>{html.escape(s.name)}</td><td>{s.seconds:.1f} s</td></tr>" for s in entry.stages)
    drift = f"<h3>Drift story</h3>{_facts(entry.drift)}" if entry.drift else ""
    burst = f"<h3>A card's velocity</h3>{_facts(entry.velocity)}" if entry.velocity else ""
    return (
        f"<h2>{html.escape(name)}</h2><table><tr><th>clause<th>target<th>measured<th>verdict<th>n<th></tr>{rows}</table>"
        f"<h3>Latency of {entry.requests:,} requests</h3>{_histogram(entry.latency_histogram)}"
        f"<h3>Model</h3>{_facts(entry.model)}{burst}{drift}<h3>Stages</h3><table>{stages}</table>"
    )


def _facts(values: dict[str, Any]) -> str:
    rows = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>"


def _histogram(bins: tuple[int, ...]) -> str:
    top = max(bins, default=0)
    if not top:
        return "<p>none</p>"
    width = 600 / len(bins)
    bars = "".join(
        f"<rect x='{i * width:.1f}' y='{110 - 100 * n / top:.1f}' width='{width - 1:.1f}' height='{100 * n / top:.1f}' "
        f"fill='#2563a8'><title>{i} ms: {n}</title></rect>"
        for i, n in enumerate(bins)
    )
    labels = "".join(f"<text x='{i * width:.1f}' y='126' font-size='11'>{i} ms</text>" for i in range(0, len(bins), 10))
    return f"<svg viewBox='0 0 620 130' role=img aria-label='latency histogram'>{bars}{labels}</svg>"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,.4g}" if isinstance(value, float) else html.escape(str(value))
