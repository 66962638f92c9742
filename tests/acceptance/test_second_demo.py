"""A second demo reuses what is still valid, and deploys over a running use case without a failed request."""

from __future__ import annotations

from tests.acceptance.platform import Platform


def test_a_second_demo_reuses_the_model(platform: Platform) -> None:
    before = platform.first["use_cases"]["churn"]
    entry = platform.demo(requests=100)["use_cases"]["churn"]
    stages = {stage["name"] for stage in entry["stages"]}
    assert "churn: reuse model" in stages
    assert "churn: reuse model" not in {stage["name"] for stage in before["stages"]}
    assert entry["model"] == before["model"]
    assert entry["requests"] == 100
    assert entry["errors"] == 0
    assert entry["mismatches"] == 0
    verdicts = {item["clause"]: item["verdict"] for item in entry["clauses"]}
    assert verdicts["decision_log"] == "pass"
