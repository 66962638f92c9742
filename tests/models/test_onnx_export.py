"""The ONNX form against XGBoost itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xgboost

from headway.core.errors import InvalidValue
from headway.models.backends import open_backend
from headway.models.onnx_export import export_onnx, tree_models
from headway.models.parity import TOLERANCE
from headway.models.validation import parse_model_json
from headway.training.definitions import OBJECTIVES
from tests.models.conftest import make_booster, make_matrix


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"base_score": 0.008},
        {"gamma": 2.0, "max_depth": 8},
        {"grow_policy": "lossguide", "max_leaves": 40},
        {"scale_pos_weight": 20.0, "subsample": 0.5},
        {"num_parallel_tree": 3},
        {"max_depth": 1},
    ],
)
def test_scores_equal_those_of_xgboost_with_missing_values(params: dict[str, object]) -> None:
    matrix = make_matrix()
    booster = make_booster(matrix, rounds=150, **params)
    data = bytes(booster.save_raw("json"))
    onnx = open_backend("onnx", export_onnx(parse_model_json(data)))
    rows = np.concatenate([matrix, np.full((1, 4), np.nan, np.float32), np.zeros((1, 4), np.float32)])
    expected = booster.predict(xgboost.DMatrix(rows))
    assert np.abs(onnx.predict(rows) - expected).max() <= TOLERANCE
    assert np.abs(open_backend("xgboost", data).predict(rows) - expected).max() == 0


def test_a_row_on_a_split_value_goes_the_same_way() -> None:
    matrix = make_matrix(500)
    booster = make_booster(matrix, rounds=10)
    model = parse_model_json(bytes(booster.save_raw("json")))
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    rows = np.repeat(matrix[:1], 3, axis=0)
    at = np.float32(tree["split_conditions"][0])
    rows[:, tree["split_indices"][0]] = [at, np.nextafter(at, np.float32(-9)), np.nextafter(at, np.float32(9))]
    onnx = open_backend("onnx", export_onnx(model))
    np.testing.assert_allclose(onnx.predict(rows), booster.inplace_predict(rows), atol=TOLERANCE, rtol=0)


def test_a_score_does_not_depend_on_its_batch() -> None:
    matrix = make_matrix(300)
    data = bytes(make_booster(matrix).save_raw("json"))
    onnx = open_backend("onnx", export_onnx(parse_model_json(data)))
    whole = onnx.predict(matrix)
    single = np.concatenate([onnx.predict(matrix[row : row + 1]) for row in range(len(matrix))])
    np.testing.assert_array_equal(whole, single)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name.startswith(("reg", "count"))])
def test_regressions_equal_xgboosts_within_the_last_digits(objective: str) -> None:
    matrix = make_matrix()
    label = np.nan_to_num(matrix[:, 0]) ** 2 + np.random.default_rng(2).gamma(2.0, 1.0, len(matrix))
    params = {"objective": objective, "max_depth": 5, "nthread": 1}
    booster = xgboost.train(params, xgboost.QuantileDMatrix(matrix, label=label), 80)
    files = tree_models(booster)
    expected = booster.predict(xgboost.DMatrix(matrix))
    for name, data in files.items():
        np.testing.assert_allclose(open_backend(name, data).predict(matrix), expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("onehot", [1, 100])
def test_categorical_splits_agree_on_every_code_unseen_and_missing_ones_too(onehot: int) -> None:
    generator = np.random.default_rng(4)
    codes = 40
    matrix = make_matrix()
    matrix[:, 1], matrix[:, 3] = generator.integers(0, codes, len(matrix)), generator.integers(0, 3, len(matrix))
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    worth = generator.normal(size=codes)
    label = worth[np.nan_to_num(matrix[:, 1]).astype(int)] + np.nan_to_num(matrix[:, 0]) > 0.3
    data = xgboost.QuantileDMatrix(matrix, label=label, feature_types=["q", "c", "q", "c"], enable_categorical=True)
    params = {"objective": "binary:logistic", "max_depth": 5, "nthread": 1, "max_cat_to_onehot": onehot}
    booster = xgboost.train(params, data, 60)
    files = tree_models(booster)
    sizes = [size for tree in trees_of(files["xgboost"]) for size in tree["categories_sizes"]]
    assert sizes
    assert (max(sizes) > 1) == (onehot == 1)
    rows = np.repeat(matrix[:5], codes + 3, axis=0)
    rows[:, 1] = np.tile([*range(codes + 2), np.nan], 5)  # two codes were never seen
    rows = np.concatenate([rows, matrix])
    expected = booster.inplace_predict(rows)
    for name, file in files.items():
        np.testing.assert_allclose(open_backend(name, file).predict(rows), expected, rtol=0, atol=TOLERANCE)


def trees_of(data: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parse_model_json(data)["learner"]["gradient_booster"]["model"]["trees"]
    return found


@pytest.mark.parametrize("params", [{"objective": "multi:softprob", "num_class": 3}, {"booster": "dart"}])
def test_models_that_cannot_be_computed_elsewhere_are_refused(params: dict[str, object]) -> None:
    matrix = np.zeros((10, 2), np.float32)
    settings = {"objective": "binary:logistic"} | params
    booster = xgboost.train(settings, xgboost.DMatrix(matrix, label=np.arange(10) % 2), 2)
    with pytest.raises(InvalidValue, match="cannot export"):
        export_onnx(json.loads(booster.save_raw("json")))
