"""What the demo reports, and that every decision it got is in the lake."""

from __future__ import annotations

import contextlib
import json

import jsonschema
import msgspec

from headway.core.errors import NotFound
from headway.governance.report import Report
from tests.acceptance.platform import LATENCY, Platform, until
from tests.conftest import ROOT


def test_the_report_is_of_the_agreed_form(platform: Platform) -> None:
    schema = json.loads((ROOT / "docs" / "schemas" / "report.json").read_text())
    jsonschema.validate(platform.first, schema)
    kept = platform.home / "demo" / "report.json"
    jsonschema.validate(json.loads(kept.read_text()), schema)
    msgspec.convert(platform.first, Report)
    assert kept.with_suffix(".html").read_text().startswith("<!doctype html>")


def test_nothing_failed_nothing_was_skewed_and_nothing_was_missed(platform: Platform) -> None:
    entry = platform.first["use_cases"]["churn"]
    assert entry["requests"] == 600
    assert entry["errors"] == 0
    assert entry["replayed_reads"] >= 600
    assert entry["mismatches"] == 0
    verdicts = {item["clause"]: item["verdict"] for item in entry["clauses"]}
    assert {name for name, verdict in verdicts.items() if verdict == "miss"} <= set(LATENCY)
    assert verdicts["no skew"] == verdicts["decision_log"] == verdicts["accuracy.roc_auc"] == "pass"
    assert verdicts["throughput.ceiling_rps"] == "not shown"
    assert verdicts["velocity.purchases"] == "pass"
    assert entry["velocity"]["seen"]
    assert entry["velocity"]["purchases__count_7d"] == "0 → 10"
    assert sum(entry["latency_histogram"]) == 600
    assert all(stage["seconds"] >= 0 for stage in entry["stages"])


def test_every_decision_is_logged_once_by_the_reported_version(platform: Platform) -> None:
    log = platform.scan("decisions.churn")
    replayed = [
        row for row in log.select(["sub", "decision_id", "model_version"]).to_pylist() if row["sub"] == "demo-client"
    ]
    assert len(replayed) == len({row["decision_id"] for row in replayed}) == 600
    assert {row["model_version"] for row in replayed} == {platform.first["use_cases"]["churn"]["model"]["version"]}


def test_the_outcomes_posted_reach_the_lake(platform: Platform) -> None:
    (clause,) = (
        item for item in platform.first["use_cases"]["churn"]["clauses"] if item["clause"].startswith("accuracy")
    )

    def arrived() -> set[str]:
        with contextlib.suppress(NotFound):
            outcomes = platform.scan("outcomes.churn")
            return {row["decision_id"] for row in outcomes.to_pylist() if row["sub"] == "demo-client"}
        return set()

    until(lambda: len(arrived()) == clause["n"] > 0, within_s=120, message="the outcomes did not reach the lake")
    assert arrived() <= set(platform.scan("decisions.churn")["decision_id"].to_pylist())


def test_status_says_up(platform: Platform) -> None:
    said: list[str] = []

    def up() -> bool:
        done = platform.run("headway", "status", "--json")
        said.append(done.stdout)
        return done.returncode == 0

    until(up, within_s=60, message="not everything is up")
    found = json.loads(said[-1])
    assert found["state"] == "up"
    assert {row["state"] for row in found["services"]} == {"up"}
    assert found["home"] == str(platform.home)
