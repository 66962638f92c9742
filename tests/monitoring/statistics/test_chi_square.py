"""χ² against scipy, total variation against its definition, both against simulation where nothing has drifted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headway.monitoring.statistics import homogeneity, total_variation
from headway.monitoring.statistics.chi_square import variation_radius

rows = st.lists(st.integers(0, 40), min_size=2, max_size=6)


def test_equals_scipy_on_raw_values() -> None:
    rng = np.random.default_rng(5)
    reference, current = rng.integers(0, 6, 3_000), rng.integers(0, 7, 900)
    table = stats.contingency.crosstab(np.repeat([0, 1], [3_000, 900]), np.concatenate([reference, current])).count
    expected = stats.chi2_contingency(table, correction=False)
    statistic, p = homogeneity(table[0], table[1])
    assert statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert p == pytest.approx(expected.pvalue, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data(), rows)
def test_total_variation_is_the_largest_difference_over_all_subsets(data: st.DataObject, reference: list[int]) -> None:
    current = data.draw(st.lists(st.integers(0, 40), min_size=len(reference), max_size=len(reference)))
    a, b = np.array(reference), np.array(current)
    effect = total_variation(a, b, alpha=0.05)
    if a.sum() == 0 or b.sum() == 0:
        assert effect.value == 0.0
        return
    subsets = itertools.product([False, True], repeat=len(a))
    best = max(a[list(chosen)].sum() / a.sum() - b[list(chosen)].sum() / b.sum() for chosen in subsets)
    assert effect.value == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(("m", "n"), [(1_000, 1_000), (500, 2_000), (2_000, 60)])
def test_false_positives_of_the_test_are_the_nominal_share(m: int, n: int) -> None:
    """Goodness of fit on the same draws is wrong 32 to 73 % of the time; the last case takes the simulated path."""
    rng = np.random.default_rng(7)
    p = np.array([0.4, 0.3, 0.2, 0.06, 0.03, 0.009, 0.001])
    runs = 400
    positives = sum(homogeneity(rng.multinomial(m, p), rng.multinomial(n, p))[1] < 0.05 for _ in range(runs))
    assert positives / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_one_unseen_category_is_no_proof() -> None:
    _, p = homogeneity(np.array([500, 500, 0]), np.array([500, 499, 1]))
    assert p > 0.2


@pytest.mark.parametrize("truth", [0.0, 0.1])
def test_the_bound_exceeds_the_true_variation_no_more_often_than_alpha(truth: float) -> None:
    rng = np.random.default_rng(13)
    p = np.full(10, 0.1)
    q = np.concatenate([np.full(5, 0.1 - truth / 5), np.full(5, 0.1 + truth / 5)])
    alpha, runs = 0.2, 1_000
    missed = sum(
        total_variation(rng.multinomial(900, p), rng.multinomial(300, q), alpha=alpha).lower > truth
        for _ in range(runs)
    )
    assert missed / runs <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


def test_the_radius_takes_the_smaller_bound() -> None:
    two = variation_radius(1_000, 2, 1e-4)
    assert two == pytest.approx(np.sqrt(np.log(2 / 1e-4) / 2_000))
    many = variation_radius(1_000, 5_000, 1e-4)
    assert many < np.sqrt((5_000 * np.log(2) - np.log(1e-4)) / 2_000)
    assert variation_radius(1_000, 1, 1e-4) == 0.0


def test_degenerate_tables_prove_nothing() -> None:
    assert homogeneity(np.array([7, 0]), np.array([9, 0])) == (0.0, 1.0)
    assert homogeneity(np.array([7, 2]), np.array([0, 0])) == (0.0, 1.0)
