"""Calibration: monotone, near the truth, the same in every back end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.isotonic import isotonic_regression

from headway.core.errors import InvalidValue, Tampered
from headway.models.backends import open_backend
from headway.models.calibration import ATTRIBUTE, KNOTS, decode, encode, fit_calibration, pool
from headway.models.onnx_export import tree_models
from headway.models.parity import TOLERANCE
from tests.models.conftest import make_booster, make_matrix

KINDS = ("platt", "isotonic")


def margins_and_labels(rows: int = 20_000) -> tuple[Any, Any, Any]:
    """Return margins that are too sure of themselves by a factor of three, labels, and the true chances."""
    generator = np.random.default_rng(8)
    truth = generator.normal(-1, 1.5, rows)
    chance = 1 / (1 + np.exp(-truth))
    label = (generator.random(rows) < chance).astype(np.float32)
    return (3 * truth + 1).astype(np.float32), label, chance


@pytest.mark.parametrize(("kind", "bound"), [("platt", 0.01), ("isotonic", 0.03)])
def test_calibrated_scores_are_near_the_true_chances(kind: str, bound: float) -> None:
    margin, label, chance = margins_and_labels()
    found = fit_calibration(kind, margin, label)(margin)
    assert np.abs(found - chance).mean() < bound
    assert np.abs(1 / (1 + np.exp(-margin)) - chance).mean() > 3 * bound


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(values=arrays.arrays(np.float32, 200, elements=st.floats(-50, 50, width=32)))
def test_a_greater_margin_never_gets_a_smaller_probability(kind: str, values: Any) -> None:
    margin, label, _ = margins_and_labels(2_000)
    found = fit_calibration(kind, margin, label)(np.sort(values))
    assert (np.diff(found) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_row_counted_twice_is_a_row_of_weight_two() -> None:
    margin, label, _ = margins_and_labels(500)
    weight = np.where(np.arange(500) % 3 == 0, 2, 1)
    weighted = fit_calibration("platt", margin, label, weight.astype(np.float32))
    repeated = fit_calibration("platt", np.repeat(margin, weight), np.repeat(label, weight))
    np.testing.assert_allclose(weighted(margin), repeated(margin), atol=1e-5, rtol=0)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 10)), min_size=1, max_size=KNOTS))
def test_pooling_agrees_with_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    value, weight = (np.array(side) for side in zip(*pairs, strict=True))
    np.testing.assert_allclose(pool(value, weight), isotonic_regression(value, sample_weight=weight), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_both_back_ends_apply_it_in_the_same_way(kind: str) -> None:
    matrix = make_matrix()
    booster = make_booster(matrix)
    plain = tree_models(booster)
    margin = booster.inplace_predict(matrix, predict_type="margin").astype(np.float32)
    label = (np.random.default_rng(1).random(len(matrix)) < 0.5 / (1 + np.exp(-margin))).astype(np.float32)
    found = fit_calibration(kind, margin, label)
    booster.set_attr(**{ATTRIBUTE: encode(found)})
    files = tree_models(booster)
    scores = {name: open_backend(name, data).predict(matrix) for name, data in files.items()}
    np.testing.assert_array_equal(scores["xgboost"], found(margin))
    assert np.abs(scores["onnx"] - scores["xgboost"]).max() <= TOLERANCE
    assert np.abs(open_backend("xgboost", plain["xgboost"]).predict(matrix) - scores["xgboost"]).max() > 0.1


def test_what_cannot_be_calibrated_is_refused() -> None:
    margin, label, _ = margins_and_labels(500)
    with pytest.raises(InvalidValue, match=r"recipe\.validation: 500 rows of one class"):
        fit_calibration("platt", margin, np.ones(500, np.float32))
    with pytest.raises(InvalidValue, match="label falls with the score"):
        fit_calibration("platt", -margin, label)
    with pytest.raises(InvalidValue, match="same score"):
        fit_calibration("isotonic", np.zeros(500, np.float32), label)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", '{"kind":"other"}', '{"kind":"platt","slope":-1,"offset":0}', '{"kind":"platt","slope":1}',
        '{"kind":"isotonic","margins":[0,1],"probabilities":[0.5,0.1]}',
        '{"kind":"isotonic","margins":[0,0],"probabilities":[0.5,0.6]}',
        '{"kind":"isotonic","margins":[0,1],"probabilities":[0.5,1.6]}',
        '{"kind":"isotonic","margins":[0],"probabilities":[0.5]}',
        '{"kind":"isotonic","margins":[0,1,2],"probabilities":[0.5,0.6]}',
    ],
)  # fmt: skip
def test_a_calibration_that_was_changed_is_refused(text: str) -> None:
    with pytest.raises(Tampered, match="calibration"):
        decode(text)
