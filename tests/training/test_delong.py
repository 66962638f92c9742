"""DeLong's intervals against the definition over all pairs, and against a bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import InvalidValue
from headway.training.delong import area_difference, area_interval, areas, midranks
from headway.training.measuring import resamples
from headway.training.metrics import Float64, Ranking

SCORE = st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
PAIRS = st.integers(4, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n),
        st.lists(SCORE, min_size=n, max_size=n),
        st.lists(SCORE, min_size=n, max_size=n),
    )
)


def naive(label: Float64, scores: list[Float64]) -> tuple[Float64, Float64]:
    """The definition of DeLong et al. (1988): every positive against every negative."""
    shares = []
    for score in scores:
        above = score[label == 1][:, None] - score[label == 0][None, :]
        shares.append((above > 0) + 0.5 * (above == 0))
    values = np.array([share.mean() for share in shares])
    covariance = np.zeros((len(scores), len(scores)))
    for axis in (1, 0):
        parts = np.array([share.mean(axis=axis) for share in shares])
        if parts.shape[1] > 1:
            covariance += np.atleast_2d(np.cov(parts)) / parts.shape[1]
    return values, covariance


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_areas_and_covariance_are_those_of_all_pairs(rows: tuple[list[int], list[float], list[float]]) -> None:
    label, first, second = (np.array(column, dtype=np.float64) for column in rows)
    if label.min() == label.max():
        with pytest.raises(InvalidValue, match="one class"):
            areas(label, first)
        return
    values, covariance = naive(label, [first, second])
    found = areas(label, first, second)
    np.testing.assert_allclose(found.value, values, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)
    assert found.value[0] == pytest.approx(Ranking(label, first).roc_auc())
    one, other = (area_difference(label, *pair, tail=0.05) for pair in ((first, second), (second, first)))
    np.testing.assert_allclose(one, [-other[0], -other[2], -other[1]], atol=1e-12)


@given(st.lists(SCORE, min_size=1, max_size=30))
def test_midranks_share_ties(values: list[float]) -> None:
    column = np.array(values)
    expected = [(column < value).sum() + ((column == value).sum() + 1) / 2 for value in column]
    np.testing.assert_allclose(midranks(column), expected)


def rows(seed: int, n: int = 2_000) -> tuple[Float64, Float64, Float64]:
    generator = np.random.default_rng(seed)
    label = (generator.random(n) < 0.2).astype(np.float64)
    shared = generator.normal(size=n)
    return label, label + shared + generator.normal(size=n), 0.7 * label + shared + generator.normal(size=n)


def test_intervals_agree_with_a_bootstrap() -> None:
    label, first, second = rows(1)
    mine, theirs = Ranking(label, first), Ranking(label, second)
    draws = np.array([(mine.roc_auc(w), theirs.roc_auc(w)) for w in resamples(len(label), None, 600, 3)])
    value, low, high = area_interval(label, first, tail=0.05)
    np.testing.assert_allclose((low, high), np.quantile(draws[:, 0], [0.05, 0.95]), atol=0.15 * (high - low))
    gain, low, high = area_difference(label, first, second, tail=0.05)
    np.testing.assert_allclose(
        (low, high), np.quantile(draws[:, 0] - draws[:, 1], [0.05, 0.95]), atol=0.15 * (high - low)
    )
    assert low < gain < high
    assert 0 < value < 1


def test_a_difference_of_equals_is_covered_as_often_as_it_says() -> None:
    outside = 0
    for seed in range(200):
        label, first, _ = rows(seed, 400)
        same = label + np.random.default_rng(seed + 1_000).normal(size=len(label)) * np.sqrt(2)
        _, low, high = area_difference(label, first, same, tail=0.05)
        outside += not low <= 0 <= high
    assert 8 <= outside <= 34  # 20 expected, within three standard deviations


def test_a_perfect_ranking_has_no_width() -> None:
    assert area_interval([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], tail=0.05) == (1.0, 1.0, 1.0)
