"""Model files with a broken structure, none of which may reach the native parser."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost

from headway.core.errors import Tampered
from headway.models.validation import parse_model_json
from tests.models.conftest import make_booster, make_matrix


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    return dict(json.loads(make_booster(make_matrix(500), rounds=3).save_raw("json")))


def trees(model: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = model["learner"]["gradient_booster"]["model"]["trees"]
    return found


def test_a_sound_model_is_accepted(model: dict[str, Any]) -> None:
    assert len(trees(parse_model_json(json.dumps(model).encode()))) == 3


def put(name: str, index: int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(model: dict[str, Any]) -> None:
        trees(model)[1][name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("left_children", 0, 1_000_000), "child index"),
        (put("left_children", 0, -7), "child index"),
        (put("right_children", 0, 0), "reached twice"),
        (put("right_children", 0, 1), "reached twice"),
        (put("left_children", 0, -1), "one child"),
        (put("split_indices", 0, 4), "split index"),
        (put("split_indices", 0, -1), "split index"),
        (put("split_conditions", 0, "x"), "not an XGBoost model"),
        (put("left_children", 0, [1]), "not an XGBoost model"),
        (lambda model: trees(model)[0]["default_left"].pop(), "default_left"),
        (lambda model: trees(model)[0]["tree_param"].update(num_nodes="999"), "num_nodes"),
        (lambda model: trees(model)[0].update(left_children=[]), "num_nodes"),
        (lambda model: trees(model).pop(), "tree_info"),
        (lambda model: model["learner"].pop("gradient_booster"), "not an XGBoost model"),
    ],
)
def test_a_broken_structure_is_refused(
    model: dict[str, Any], change: Callable[[dict[str, Any]], object], says: str
) -> None:
    broken = copy.deepcopy(model)
    change(broken)
    with pytest.raises(Tampered, match=says):
        parse_model_json(json.dumps(broken).encode())


@pytest.fixture(scope="module")
def categorical() -> dict[str, Any]:
    matrix = make_matrix(500)
    matrix[:, 0] = np.random.default_rng(1).integers(0, 20, len(matrix))
    label = matrix[:, 0] % 3 == 0
    data = xgboost.QuantileDMatrix(matrix, label=label, feature_types=["c", "q", "q", "q"], enable_categorical=True)
    return dict(json.loads(xgboost.train({"objective": "binary:logistic"}, data, 3).save_raw("json")))


def test_sound_categories_are_accepted(categorical: dict[str, Any]) -> None:
    assert trees(parse_model_json(json.dumps(categorical).encode()))[1]["categories"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("categories", 0, 1 << 30), "a category is outside"),
        (put("categories", 0, -1), "a category is outside"),
        (put("categories_segments", 0, 5), "segments"),
        (put("categories_sizes", 0, 1_000_000), "segments"),
        (put("categories_nodes", 0, 1_000_000), "categorical nodes"),
        (put("split_type", 0, 0), "categorical nodes"),
        (lambda model: trees(model)[1].pop("categories_sizes"), "not an XGBoost model"),
    ],
)
def test_broken_categories_are_refused(
    categorical: dict[str, Any], change: Callable[[dict[str, Any]], object], says: str
) -> None:
    broken = copy.deepcopy(categorical)
    assert trees(broken)[1]["split_type"][0] == 1
    change(broken)
    with pytest.raises(Tampered, match=says):
        parse_model_json(json.dumps(broken).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{\x00", b"[" * 100_000, b'{"learner": 1}'])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(Tampered, match="not an XGBoost model"):
        parse_model_json(data)
