"""Differences of treatment between the parts of a protected column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from headway.training.gates.fairness import check_fairness, difference, wilson
from headway.training.judging import Protected
from tests.training.gates.rows_for_tests import ranked, rows


@given(st.integers(1, 500), st.data())
def test_wilson_is_that_of_scipy(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    expected = binomtest(hits, trials).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose(wilson(hits, trials, 0.05), (expected.low, expected.high), atol=1e-9)


def test_the_difference_is_that_of_newcombes_table() -> None:
    value, low, high = difference(56, 70, 48, 80, 0.025)  # Newcombe 1998, table II (a), method 10
    np.testing.assert_allclose((value, low, high), (0.2, 0.0524, 0.3339), atol=5e-5)


def judged(bias: float, bound: float, **more: float) -> dict[tuple[str, str], bool]:
    label, score = ranked(5, 20_000)
    group = np.random.default_rng(6).choice(["a", "b"], len(label))
    shifted = np.where(group == "a", np.clip(score - bias, 0, 1), score)
    protected = Protected(column="group", minimum=int(more.get("minimum", 500)), selection_rate=bound,
                          true_positive_rate=bound)  # fmt: skip
    results = check_fairness(rows(label, shifted, columns={"group": group}), [protected], 0.5)
    return {(result.part, result.metric): result.passed for result in results}


def test_equal_treatment_passes_and_a_shift_against_one_part_does_not() -> None:
    assert set(judged(0.0, 0.05).values()) == {True}
    assert len(judged(0.0, 0.05)) == 4
    assert set(judged(0.3, 0.05).values()) == {False}


def test_what_is_too_small_to_tell_does_not_pass() -> None:
    assert set(judged(0.0, 0.001).values()) == {False}


def test_small_parts_are_listed_and_a_column_without_a_bound_fails() -> None:
    label, score = ranked(5)
    columns = {"group": np.array(["a"] * 10 + ["b"] * (len(label) - 10))}
    results = check_fairness(
        rows(label, score, columns=columns), [Protected(column="group", selection_rate=0.5, minimum=100)], 0.5
    )
    assert [result.value is None for result in results] == [True, False]
    (result,) = check_fairness(rows(label, score, columns=columns), [Protected(column="group")], 0.5)
    assert (result.passed, result.value) == (False, None)
    assert "no bound" in str(result)


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_another_task_cannot_pass(task: str) -> None:
    label, score = ranked(5)
    judged_rows = rows(label, score, task=task, columns={"group": np.zeros(len(label))})
    results = check_fairness(judged_rows, [Protected(column="group", selection_rate=0.5)], 0.5)
    assert [result.passed for result in results] == [False]
