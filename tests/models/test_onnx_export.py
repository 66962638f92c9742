"""The ONNX form against XGBoost itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xgboost

from headway.core.errors import InvalidValue
from headway.models.backends import open_backend
from headway.models.onnx_export import export_onnx
from headway.models.parity import TOLERANCE
from headway.models.validation import parse_model_json
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


def test_other_objectives_are_refused() -> None:
    matrix = np.zeros((10, 2), np.float32)
    booster = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(matrix, label=np.arange(10)), 2)
    with pytest.raises(InvalidValue, match="reg:squarederror"):
        export_onnx(json.loads(booster.save_raw("json")))
