from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from headway.cluster.demo.report import latency_summary, load_report, render_page, save_report
from headway.core.errors import CorruptState
from headway.governance.report import ClauseResult, LatencyQuantiles, StageSeconds, UseCaseReport
from headway.governance.schemas import schema

CLAUSES = (
    ClauseResult(clause="latency.p99_ms", target="≤ 45", measured=12.3456, unit="ms", verdict="pass", n=1_000),
    ClauseResult(clause="<script>", target="0", measured=None, unit="", verdict="not shown", n=0, note="a & b"),
)
ENTRY = UseCaseReport(
    clauses=CLAUSES,
    stages=(StageSeconds(name="train", seconds=1.25),),
    latency_ms=LatencyQuantiles(p50=1.0, p95=2.0, p99=3.0),
    requests=1_000,
    errors=0,
    replayed_reads=1_000,
    mismatches=0,
    model={"version": "1"},
    latency_histogram=(10, 20, 0),
)


def test_latencies_become_quantiles_and_milliseconds() -> None:
    quantiles, bins = latency_summary([0.5, 0.9, 1.5, 59.9, 60.0, 1_000.0])
    assert quantiles.p50 == pytest.approx(30.7)
    assert quantiles.p99 == pytest.approx(953.0)
    assert len(bins) == 61
    assert (bins[0], bins[1], bins[59], bins[60], sum(bins)) == (2, 1, 1, 2, 6)


def test_no_latencies_are_null() -> None:
    assert latency_summary([]) == (LatencyQuantiles(p50=None, p95=None, p99=None), ())


def test_a_saved_report_is_of_the_agreed_form_and_keeps_the_other_use_cases(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "report.json"
    assert load_report(path).use_cases == {}
    save_report(path, "churn", ENTRY)
    both = save_report(path, "fraud", ENTRY)
    assert set(both.use_cases) == {"churn", "fraud"}
    assert load_report(path) == both
    jsonschema.validate(json.loads(path.read_text()), schema("report"))
    assert both.versions["ray"]
    assert both.environment["cores"] >= 1
    assert path.with_suffix(".html").read_text() == render_page(both)


def test_a_file_that_is_no_report_is_kept_and_said(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("{}")
    with pytest.raises(CorruptState, match="is not a report"):
        save_report(path, "churn", ENTRY)
    assert path.read_text() == "{}"


def test_the_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    page = render_page(save_report(tmp_path / "report.json", "churn", ENTRY))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert "http" not in page
    assert page.count("<rect") == 3
    assert "class='pass'" in page
    assert "class='not'" in page
