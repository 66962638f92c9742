"""The promise of the contract: at most so many false alarms, and real drift found."""

from __future__ import annotations

import numpy as np
import pytest

from headway.core.errors import CorruptState, DefinitionError
from headway.core.times import DAY, HOUR
from headway.monitoring.alarms import DRIFT, QUALITY, alarm_of, judge
from headway.monitoring.budget import MONTH, DriftBudget
from headway.monitoring.definitions import Monitor
from headway.monitoring.reference import Bins, Reference
from tests.monitoring.support import BUDGET, MONITOR, count, layout, reference

FEATURES = tuple(f"f{index}" for index in range(20))


def world(rng: np.random.Generator, rows: int) -> Reference:
    values = rng.random((rows, len(FEATURES)))
    return Reference(version="1", profile_sha256="b" * 64, bins=layout(FEATURES), counts=count(values))


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 0.1], ids=["no drift", "drift exactly as large as allowed"])
def test_false_alarms_stay_within_the_windows_alpha(effect: float) -> None:
    """20 features at once, the reference drawn anew for each window; at 0.1 every feature sits on the border."""
    rng = np.random.default_rng(17)
    budget = DriftBudget(false_alarms_per_month=1.0, smallest_effect=effect)
    monitor = Monitor(use_case="u", window_rows=500)
    alpha, runs, alarms = 0.05, 300, 0
    for _ in range(runs):
        before = world(rng, 2_000)
        values = rng.random((500, len(FEATURES)))
        # mass `effect` moves from the lower to the upper half: the KS distance is exactly `effect`
        moved = (values < 0.5) & (rng.random(values.shape) < 2 * effect)
        values[moved] += 0.5
        alarms += any(f.alarmed for f in judge(before, count(values), monitor=monitor, budget=budget, alpha=alpha))
    assert alarms / runs <= alpha


def test_a_drift_of_three_times_the_smallest_effect_alarms_in_one_window() -> None:
    rng = np.random.default_rng(19)
    hits = 0
    for seed in range(30):
        values = rng.random((2_000, 3))
        values[:, 0] = 0.3 + 0.7 * values[:, 0]
        findings = judge(reference(seed=seed), count(values), monitor=MONITOR, budget=BUDGET, alpha=1e-3)
        hits += findings[0].alarmed and findings[0].feature == "amount"
        assert not any(finding.alarmed for finding in findings if finding.feature != "amount")
    assert hits == 30


def test_more_nulls_are_broken_data_except_where_entities_are_rightly_new() -> None:
    values = np.random.default_rng(23).random((2_000, 3))
    broken = values.copy()
    broken[:900, 0] = np.nan
    cold = values.copy()
    cold[:900, 1] = np.nan
    kinds = []
    for current in (broken, cold):
        findings = judge(reference(), count(current), monitor=MONITOR, budget=BUDGET, alpha=1e-3)
        alarm = alarm_of(findings, use_case="fraud", version="1", first_time=0, last_time=1, rows=2_000)
        assert alarm is not None
        kinds.append((alarm.kind, alarm.features))
    assert kinds == [(QUALITY, ("amount",)), (DRIFT, ("card_activity__count_7d",))]


def test_categories_are_compared_by_total_variation_and_ignored_ones_not_at_all() -> None:
    monitor = Monitor(use_case="fraud", categorical=("amount",), ignore=("score",))
    values = np.random.default_rng(1).random((500, 3))
    findings = judge(reference(), count(values), monitor=monitor, budget=BUDGET, alpha=1e-3)
    statistics = {(finding.feature, finding.part): finding.effect.statistic for finding in findings}
    assert statistics == {
        ("amount", "values"): "tv",
        ("amount", "nulls"): "tv",
        ("card_activity__count_7d", "values"): "ks",
        ("card_activity__count_7d", "nulls"): "tv",
    }


def test_the_same_window_raises_the_same_alarm() -> None:
    values = np.random.default_rng(29).random((2_000, 3)) ** 3
    findings = judge(reference(), count(values), monitor=MONITOR, budget=BUDGET, alpha=1e-3)
    one, two, other = (
        alarm_of(findings, use_case="fraud", version="1", first_time=0, last_time=last, rows=2_000)
        for last in (1, 1, 2)
    )
    assert one is not None and two is not None and other is not None
    assert one.id == two.id != other.id
    assert alarm_of((), use_case="fraud", version="1", first_time=0, last_time=1, rows=2_000) is None


@pytest.mark.parametrize("windows", [1, 30, 720, 100_000])
def test_a_month_spends_at_most_the_months_budget_however_it_is_cut(windows: int) -> None:
    budget = DriftBudget(false_alarms_per_month=0.5, smallest_effect=0.1)
    assert sum(budget.alpha(MONTH // windows) for _ in range(windows)) <= 0.5 * (1 + 1e-3)


def test_alpha_follows_the_time_covered_and_stays_convincing() -> None:
    assert BUDGET.alpha(DAY) == pytest.approx(1 / 30)
    assert BUDGET.alpha(HOUR) == pytest.approx(1 / 720)
    assert BUDGET.alpha(10 * MONTH) == 0.05
    assert 0 < BUDGET.alpha(-HOUR) == BUDGET.alpha(0) < 1e-8


def test_bins_must_tile_the_counts() -> None:
    with pytest.raises(CorruptState, match="do not tile"):
        Reference(
            version="1",
            profile_sha256="",
            bins=(Bins(name="a", start=0, stop=2, null=1),),
            counts=np.zeros(3, np.int64),
        )


def test_a_window_that_can_show_nothing_is_refused() -> None:
    with pytest.raises(DefinitionError, match="window_rows"):
        Monitor(use_case="fraud", window_rows=10)
