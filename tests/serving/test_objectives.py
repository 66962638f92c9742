from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.serving.objectives import AVAILABILITY, P95, P99, WINDOWS, Budgets, Objectives

OBJECTIVES = Objectives(p95_s=0.02, p99_s=0.045, availability=0.999, max_lag={"activity": 5_000_000})
events = st.lists(
    st.tuples(
        st.floats(0, 4_000), st.sampled_from(sorted(OBJECTIVES.allowed)), st.integers(0, 20), st.integers(0, 100)
    ),
    max_size=30,
)


@settings(deadline=None)
@given(events)
def test_burn_rates_are_those_of_every_event_remembered(steps: list[tuple[float, str, int, int]]) -> None:
    budgets, now = Budgets(OBJECTIVES), 0.0
    remembered: list[tuple[int, str, int, int]] = []
    for wait, clause, bad, good in steps:
        now += wait
        budgets.add(clause, bad, bad + good, now)
        remembered.append((int(now) // 10, clause, bad, bad + good))
    for (clause, window), rate in budgets.burn(now).items():
        within = [e for e in remembered if e[1] == clause and int(now) // 10 - e[0] < WINDOWS[window] // 10]
        bad, total = sum(e[2] for e in within), sum(e[3] for e in within)
        assert math.isclose(rate, bad / total / OBJECTIVES.allowed[clause] if total else 0.0)


def test_a_budget_used_exactly_up_burns_at_one() -> None:
    budgets = Budgets(OBJECTIVES)
    for clause, bad in ((P95, 50), (P99, 10), (AVAILABILITY, 1)):
        budgets.add(clause, bad, 1_000, 100.0)
        assert all(math.isclose(budgets.burn(100.0)[clause, window], 1.0) for window in WINDOWS)
    later = budgets.burn(100.0 + 400)
    assert later[P95, "5m"] == 0.0
    assert math.isclose(later[P95, "1h"], 1.0)


def test_the_clauses_are_bounds_of_buckets() -> None:
    assert {OBJECTIVES.p95_s, OBJECTIVES.p99_s} < set(OBJECTIVES.buckets)
    assert sorted(OBJECTIVES.buckets) == list(OBJECTIVES.buckets)
