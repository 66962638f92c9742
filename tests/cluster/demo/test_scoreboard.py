from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headway.cluster.demo.scoreboard import Observed, Seen, judge, upper_bound
from headway.governance.contract import load_contract
from headway.governance.report import ClauseResult
from tests.conftest import ROOT

CONTRACT = load_contract(ROOT / "serve_apps" / "churn" / "contract.yaml").contract
GOOD = Observed(
    latencies_ms=[5.0] * 10_000,
    failures=0,
    rate_rps=200.0,
    labels=[0, 1] * 50,
    metrics={"roc_auc": 0.75},
    stale=0,
    logged=10_000,
    mismatches=0,
    replayed_reads=10_000,
)


def clause(name: str, **changed: object) -> ClauseResult:
    (found,) = (item for item in judge(CONTRACT, replace(GOOD, **changed)) if item.clause == name)  # type: ignore[arg-type]  # one helper for every field
    return found


def test_every_measurable_clause_has_one_line() -> None:
    names = [item.clause for item in judge(CONTRACT, GOOD)]
    assert len(names) == len(set(names))
    assert set(names) == {
        "latency.p95_ms",
        "latency.p99_ms",
        "throughput.ceiling_rps",
        "availability.target",
        "accuracy.roc_auc",
        "freshness.purchases",
        "decision_log",
        "no skew",
    }


def test_a_good_run_passes_what_it_can_show() -> None:
    verdicts = {item.clause: item.verdict for item in judge(CONTRACT, GOOD)}
    assert verdicts.pop("throughput.ceiling_rps") == "not shown"
    assert set(verdicts.values()) == {"pass"}


def test_latency_is_the_quantile_against_its_bound() -> None:
    slow = [5.0] * 9_800 + [44.0] * 50 + [100.0] * 150
    assert clause("latency.p95_ms", latencies_ms=slow).verdict == "pass"
    p99 = clause("latency.p99_ms", latencies_ms=slow)
    assert (p99.verdict, p99.measured, p99.target, p99.n) == ("miss", 100.0, "≤ 45", 10_000)


@pytest.mark.parametrize(
    ("rate", "failures", "verdict"), [(2_000.0, 0, "pass"), (2_000.0, 1, "not shown"), (1_999.0, 0, "not shown")]
)
def test_throughput_is_shown_only_at_the_ceiling(rate: float, failures: int, verdict: str) -> None:
    assert clause("throughput.ceiling_rps", rate_rps=rate, failures=failures).verdict == verdict


def test_availability_is_missed_shown_or_not_shown() -> None:
    assert clause("availability.target").verdict == "pass"
    assert clause("availability.target", latencies_ms=[5.0] * 500, logged=500).verdict == "not shown"
    assert clause("availability.target", failures=5).verdict == "not shown", "5 of 10,000 could be 1 in 1,000"
    failed = clause("availability.target", failures=11)
    assert failed.verdict == "miss"
    assert "11/10000" in failed.note


def test_accuracy_needs_both_labels() -> None:
    assert clause("accuracy.roc_auc", metrics={}).verdict == "not shown"
    assert clause("accuracy.roc_auc", metrics={"roc_auc": 0.69}).verdict == "miss"
    assert "50 positive" in clause("accuracy.roc_auc").note


def test_stale_lost_and_skewed_decisions_are_misses() -> None:
    assert clause("freshness.purchases", stale=1).verdict == "miss"
    assert clause("decision_log", logged=9_999).verdict == "miss"
    assert clause("decision_log", logged=9_999, failures=1).verdict == "pass", "a failed request has no decision"
    assert clause("no skew", mismatches=1).verdict == "miss"
    assert clause("no skew", replayed_reads=0).verdict == "not shown"


def test_a_burst_has_to_count_exactly() -> None:
    told = Seen(
        view="purchases", burst=10, counts={"a": (0.0, 10.0), "b": (2.0, 12.0)}, readable_ms=41.5, pause_s=1.0004
    )
    good = clause("velocity.purchases", velocity=told)
    assert (good.verdict, good.measured, good.n) == ("pass", 41.5, 10)
    assert good.note == "a 0 → 10, b 2 → 12"
    assert told.facts == {
        "events": 10,
        "readable after (ms)": 41.5,
        "decided again after (s)": 1.0,
        "a": "0 → 10",
        "b": "2 → 12",
        "seen": True,
    }
    for counts in ({"a": (0.0, 10.0), "b": (2.0, 13.0)}, {"a": (0.0, 9.0)}, {}):
        missed = replace(told, counts=counts, readable_ms=None)
        assert clause("velocity.purchases", velocity=missed).verdict == "miss"
        assert not missed.facts["seen"]
    late = replace(told, pause_s=1.3)
    found = clause("velocity.purchases", velocity=late)
    assert (found.verdict, found.note) == ("miss", "a 0 → 10, b 2 → 12, decided 1.3 s later")
    assert late.facts["seen"], "nothing is lost that is only late"


def test_nothing_seen_shows_nothing() -> None:
    seen = replace(GOOD, latencies_ms=[], labels=[], metrics={}, logged=0, replayed_reads=0)
    verdicts = {item.clause: item.verdict for item in judge(CONTRACT, seen)}
    assert verdicts.pop("decision_log") == "pass"
    assert set(verdicts.values()) == {"not shown"}


def test_the_upper_bound_is_clopper_pearsons() -> None:
    # no failure in n: 1 - 0.05 ** (1 / n), the "rule of three" for large n
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05**0.01)
    assert upper_bound(0, 10_000) == pytest.approx(3e-4, rel=0.01)
    assert upper_bound(0, 0) == upper_bound(3, 3) == 1.0
    bound = upper_bound(5, 50)
    rng = np.random.default_rng(7)
    assert (rng.binomial(50, bound, 20_000) <= 5).mean() == pytest.approx(0.05, abs=0.01)
