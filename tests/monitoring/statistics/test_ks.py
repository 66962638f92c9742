"""The KS distance against scipy on raw data, its bound against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headway.core.errors import InvalidValue
from headway.core.types import Int64
from headway.monitoring.statistics import kolmogorov_smirnov
from headway.monitoring.statistics.ks import dkw_radius, kolmogorov_tail


def counts(values: Int64, bins: int) -> Int64:
    return np.bincount(values, minlength=bins).astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=200), st.lists(st.integers(0, 9), min_size=2, max_size=200))
def test_distance_equals_scipys_on_raw_values(reference: list[int], current: list[int]) -> None:
    a, b = np.array(reference), np.array(current)
    effect = kolmogorov_smirnov(counts(a, 10), counts(b, 10), alpha=0.05)
    assert effect.value == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)
    assert 0.0 <= effect.lower <= effect.value


def test_quantile_bins_lose_little_of_the_distance_of_continuous_values() -> None:
    rng = np.random.default_rng(3)
    reference, current = rng.normal(size=20_000), rng.normal(0.1, 1.0, size=20_000)
    edges = np.quantile(reference, np.arange(1, 256) / 256)
    binned = kolmogorov_smirnov(
        counts(np.searchsorted(edges, reference), 256), counts(np.searchsorted(edges, current), 256), alpha=0.05
    )
    exact = stats.ks_2samp(reference, current).statistic
    assert 0.0 <= exact - binned.value <= 0.002


def test_the_tail_is_kolmogorovs_law() -> None:
    for scaled in (0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.36, 2.0, 4.0):
        assert kolmogorov_tail(scaled) == pytest.approx(stats.kstwobign.sf(scaled), abs=1e-10)


@pytest.mark.parametrize("shape", ["uniform", "points"])
@pytest.mark.parametrize("truth", [0.0, 0.1])
def test_the_bound_exceeds_the_true_distance_no_more_often_than_alpha(truth: float, shape: str) -> None:
    """The reference is drawn anew each time: its own error is inside the bound."""
    rng = np.random.default_rng(11)
    bins = 64 if shape == "uniform" else 3
    p = np.full(bins, 1 / bins)
    q = p.copy()
    q[0] -= truth if shape == "points" else 0.0
    q[-1] += truth if shape == "points" else 0.0
    if shape == "uniform" and truth:
        q = np.concatenate([p[:32] * (1 - 2 * truth), p[32:] * (1 + 2 * truth)])
    alpha, runs = 0.2, 2_000
    missed = sum(
        kolmogorov_smirnov(rng.multinomial(700, p), rng.multinomial(300, q), alpha=alpha).lower > truth
        for _ in range(runs)
    )
    assert missed / runs <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


def test_a_real_shift_is_shown_and_more_rows_show_more() -> None:
    before = np.full(100, 1_000, dtype=np.int64)
    small = np.concatenate([np.full(50, 10), np.full(50, 30)])
    effects = [kolmogorov_smirnov(before, small * factor, alpha=1e-4) for factor in (1, 10, 100)]
    assert effects[0].value == effects[1].value == pytest.approx(0.25)
    assert 0.1 < effects[0].lower < effects[1].lower < effects[2].lower < 0.25
    assert effects[0].p_value < 1e-6


def test_an_empty_side_shows_nothing() -> None:
    effect = kolmogorov_smirnov(np.array([3, 4]), np.array([0, 0]), alpha=0.05)
    assert (effect.value, effect.lower, effect.p_value, effect.current) == (0.0, 0.0, 1.0, 0)


@pytest.mark.parametrize(
    ("reference", "current", "alpha", "field"),
    [([1, 2], [1], 0.05, "counts"), ([1, -2], [1, 2], 0.05, "counts"), ([1, 2], [1, 2], 0.0, "alpha")],
)
def test_unusable_input_names_what_is_wrong(reference: list[int], current: list[int], alpha: float, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        kolmogorov_smirnov(np.array(reference), np.array(current), alpha=alpha)
    assert caught.value.field == field


def test_the_radius_is_massarts() -> None:
    assert dkw_radius(1_000, 0.05) == pytest.approx(1.3581 / np.sqrt(1_000), rel=1e-3)
