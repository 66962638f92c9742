"""Verdicts from outside, and the latency of a back end."""

from __future__ import annotations

import pytest

from headway.models.parity import BackendReport
from headway.training.gates.latency import check_latency
from headway.training.gates.verdicts import Verdict, check_verdicts


def test_verdicts_pass_as_they_are() -> None:
    brought = [Verdict(gate="consistency", passed=True), Verdict(gate="quality", passed=False, detail="2 held")]
    assert [(result.gate, result.passed) for result in check_verdicts(brought, ["consistency", "quality"])] == [
        ("consistency", True),
        ("quality", False),
    ]


def test_a_verdict_that_is_missing_or_found_nothing_fails_where_it_is_required() -> None:
    nothing = Verdict(gate="consistency", passed=None, detail="nothing compared")
    assert [result.passed for result in check_verdicts([nothing], ["consistency", "quality"])] == [False, False]
    assert [result.passed for result in check_verdicts([nothing], [])] == [True]
    (first,) = check_verdicts([nothing], ["consistency"], first=True)
    assert first.passed
    assert "not judged" in str(first)
    (never,) = check_verdicts([Verdict(gate="quality", passed=None)], ["quality"], first=True)
    assert not never.passed


@pytest.mark.parametrize(("microseconds", "passed"), [(5_000.0, True), (5_001.0, False)])
def test_a_full_batch_may_take_its_share_of_the_p95(microseconds: float, passed: bool) -> None:
    report = BackendReport(name="onnx", difference=0.0, microseconds={1: 10.0, 64: microseconds})
    (result,) = check_latency(report, p95_ms=20, share=0.25)
    assert (result.passed, result.ceiling) == (passed, 5.0)
