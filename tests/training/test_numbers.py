"""Measures of numbers and of several classes against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from headway.core.errors import InvalidValue
from headway.training import numbers
from headway.training.evaluate import evaluate
from headway.training.measuring import LOSSES, NAMES, blocks_of, prepare, resamples

NUMBERS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        *[st.lists(st.integers(-1_000, 1_000), min_size=n, max_size=n) for _ in range(2)],
        st.lists(st.integers(1, 4), min_size=n, max_size=n),
    )
)


@settings(deadline=None, max_examples=40)
@given(NUMBERS)
def test_measures_of_numbers_are_those_of_scikit_learn(rows: tuple[list[int], list[int], list[int]]) -> None:
    label, score, weight = (np.array(column, dtype=np.float64) / 10 for column in rows)
    for given_weight in (None, weight):
        found = prepare("regression", label, score)(given_weight)
        assert found["rmse"] == pytest.approx(
            oracle.root_mean_squared_error(label, score, sample_weight=given_weight), abs=1e-9
        )
        assert found["mae"] == pytest.approx(
            oracle.mean_absolute_error(label, score, sample_weight=given_weight), abs=1e-9
        )
        if label.min() < label.max():
            assert found["r2"] == pytest.approx(oracle.r2_score(label, score, sample_weight=given_weight), rel=1e-9)
        else:
            assert np.isnan(found["r2"])


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_measures_of_classes_are_those_of_scikit_learn(classes: int, rows: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, classes, rows)
    score = generator.dirichlet(np.ones(classes), rows)
    weight = generator.integers(1, 4, rows).astype(np.float64)
    told = score.argmax(axis=1)
    for given_weight in (None, weight):
        found = prepare("multiclass", label, score)(given_weight)
        assert found["accuracy"] == pytest.approx(oracle.accuracy_score(label, told, sample_weight=given_weight))
        assert found["macro_f1"] == pytest.approx(
            oracle.f1_score(label, told, average="macro", sample_weight=given_weight)
        )
        clipped = np.clip(score, 1e-7, 1 - 1e-7)
        picked = -np.log(clipped[np.arange(rows), label])
        assert found["log_loss"] == pytest.approx(np.average(picked, weights=given_weight))


def test_log_loss_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    label, score = generator.integers(0, 3, 500), generator.dirichlet(np.ones(3), 500)
    assert numbers.log_loss(label, score) == pytest.approx(oracle.log_loss(label, score, labels=[0, 1, 2]))


@pytest.mark.parametrize(
    ("label", "score", "field"),
    [
        ([0, 3], [[0.5, 0.5], [0.5, 0.5]], "label"),
        ([0, 0.5], [[0.5, 0.5], [0.5, 0.5]], "label"),
        ([0, 1], [[0.5, 0.9], [0.5, 0.5]], "score"),
        ([0, 1], [[0.5, np.nan], [0.5, 0.5]], "score"),
        ([0, 1], [0.5, 0.5], "score"),
    ],
)
def test_classes_without_a_meaning_are_refused(label: list[float], score: list[object], field: str) -> None:
    with pytest.raises(InvalidValue) as error:
        prepare("multiclass", label, np.array(score, dtype=np.float64))
    assert error.value.field == field


def test_numbers_without_a_meaning_are_refused() -> None:
    for label, score in (([1.0], [np.nan]), ([np.inf], [1.0]), ([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(InvalidValue):
            prepare("regression", label, score)


def test_every_task_is_evaluated_with_intervals() -> None:
    generator = np.random.default_rng(1)
    at, label = np.arange(400), generator.normal(size=400)
    measures = evaluate(label, label + generator.normal(size=400), event_time=at, task="regression")
    assert set(measures) == set(NAMES["regression"])
    codes = generator.integers(0, 3, 400)
    score = generator.dirichlet(np.ones(3), 400) * 0.4 + np.eye(3)[codes] * 0.6
    classes = evaluate(codes, score, event_time=at, task="multiclass")
    assert set(classes) == set(NAMES["multiclass"])
    for measure in (*measures.values(), *classes.values()):
        assert measure.low <= measure.value <= measure.high
    assert set(LOSSES) < {name for names in NAMES.values() for name in names}


def test_rows_of_a_block_are_drawn_together_and_widen_the_interval() -> None:
    generator = np.random.default_rng(2)
    block = np.repeat(np.arange(20), 50)
    for weight in resamples(len(block), block, 5, 0):
        assert all(len(set(weight[block == one])) == 1 for one in range(20))
        assert len(weight) == weight[::50].sum() * 50
    score = np.repeat(generator.normal(size=20), 50) + generator.normal(size=1_000) * 0.1
    label = np.zeros(1_000)
    alone, together = (
        evaluate(label, score, event_time=np.arange(1_000), task="regression", blocks=blocks)["mae"]
        for blocks in (None, block)
    )
    assert together.high - together.low > 3 * (alone.high - alone.low)
    days = blocks_of("day", np.array([0, 86_400_000_000]), {})
    assert days is not None
    assert days.tolist() == [0, 1]
