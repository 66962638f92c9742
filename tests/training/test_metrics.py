"""The measures against their definitions, scikit-learn, and the handbook's algorithm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from headway.core.errors import InvalidValue
from headway.core.times import DAY
from headway.training.evaluate import evaluate
from headway.training.metrics import Ranking, card_precision, squared_errors, surprise

ROWS = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)


@settings(deadline=None, max_examples=150)
@given(ROWS)
def test_measures_equal_those_of_scikit_learn_with_ties_and_weights(
    rows: tuple[list[int], list[float], list[int]],
) -> None:
    label, score = np.array(rows[0]), np.array(rows[1])
    weight = np.array(rows[2], dtype=np.float64)
    if label.min() == label.max():
        with pytest.raises(InvalidValue, match="one class"):
            Ranking(label, score)
        return
    ranking = Ranking(label, score)
    assert ranking.roc_auc() == pytest.approx(oracle.roc_auc_score(label, score))
    assert ranking.average_precision() == pytest.approx(oracle.average_precision_score(label, score))
    assert squared_errors(label, score).mean() == pytest.approx(oracle.brier_score_loss(label, score))
    clipped = np.clip(score, 1e-7, 1 - 1e-7)
    assert surprise(label, score).mean() == pytest.approx(oracle.log_loss(label, clipped))
    if (weight * label).sum() and (weight * (1 - label)).sum():
        assert ranking.roc_auc(weight) == pytest.approx(oracle.roc_auc_score(label, score, sample_weight=weight))
        assert ranking.average_precision(weight) == pytest.approx(
            oracle.average_precision_score(label, score, sample_weight=weight)
        )


@pytest.mark.parametrize(
    ("label", "score", "field"),
    [([0, 1], [0.1, np.nan], "score"), ([0, 2], [0.1, 0.2], "label"), ([], [], "label"), ([0, 1], [0.1], "score")],
)
def test_input_without_a_meaning_is_refused(label: list[float], score: list[float], field: str) -> None:
    with pytest.raises(InvalidValue) as error:
        Ranking(label, score)
    assert error.value.field == field


def handbook_card_precision(frame: pd.DataFrame, top: int) -> list[float]:
    """Chapter 4 of the handbook, its steps one by one; ties by the smaller key, as ours."""
    found: list[int] = []
    precisions = []
    for day in sorted(frame["day"].unique()):
        today = frame[(frame["day"] == day) & ~frame["card"].isin(found)]
        cards = today.groupby("card").max().sort_values("score", ascending=False, kind="stable").reset_index()
        caught = cards.head(top)
        caught = caught[caught["label"] == 1]["card"].tolist()
        precisions.append(len(caught) / top)
        found.extend(caught)
    return precisions


@pytest.mark.parametrize("seed", range(5))
def test_card_precision_equals_the_handbook(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = 3_000
    card = generator.integers(0, 120, n)
    label = ((card % 7 == 0) & (generator.random(n) < 0.3)).astype(int)
    score = np.round(generator.random(n) * 0.6 + 0.4 * label * generator.random(n), 2)
    at = generator.integers(0, 6 * DAY, n)
    frame = pd.DataFrame({"card": card, "label": label, "score": score, "day": at // DAY})
    expected = handbook_card_precision(frame, top=10)
    np.testing.assert_allclose(card_precision(label, score, card, at, top=10), expected)
    assert 0 < np.mean(expected) < 1


def test_intervals_hold_the_value_and_narrow_with_rows() -> None:
    generator = np.random.default_rng(0)

    def widths(n: int) -> dict[str, float]:
        label = (generator.random(n) < 0.2).astype(np.float32)
        score = np.clip(0.3 * label + generator.random(n) * 0.6, 0, 1)
        group = generator.integers(0, 500, n)
        measures = evaluate(label, score, event_time=generator.integers(0, 7 * DAY, n), group=group, seed=1)
        assert set(measures) == {"roc_auc", "average_precision", "brier", "log_loss", "card_precision_at_100"}
        assert all(measure.low <= measure.value <= measure.high for measure in measures.values())
        assert measures["card_precision_at_100"].n == 7
        return {name: measure.high - measure.low for name, measure in measures.items()}

    small, large = widths(400), widths(10_000)
    for name in ("roc_auc", "average_precision", "brier", "log_loss"):
        assert large[name] < small[name] / 2


def test_without_a_group_there_is_no_card_precision_and_a_seed_repeats() -> None:
    label, score = np.array([0, 1, 0, 1]), np.array([0.1, 0.8, 0.4, 0.3])
    at = np.arange(4)
    first, second = (evaluate(label, score, event_time=at, seed=3) for _ in range(2))
    assert first == second
    assert "card_precision_at_100" not in first
