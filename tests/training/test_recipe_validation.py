"""Rows that are not trained on: early stopping, calibration, weights, and more than one worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import DefinitionError, InvalidValue
from headway.core.types import Matrix
from headway.models.backends import open_backend
from headway.models.calibration import ATTRIBUTE, Platt, decode
from headway.models.parity import TOLERANCE
from headway.training.definitions import XGBoostRecipe
from headway.training.recipes.rows import Shape
from headway.training.recipes.xgboost import fit, parameters, shape_of
from headway.training.recipes.xgboost_worker import Best, WorkerConfig, boost

Learnable = tuple[Matrix, Matrix]
FEATURES = tuple(f"f{index}" for index in range(6))
CUT = 16_000
STOPPING = XGBoostRecipe(
    params={"max_depth": 6, "eta": 0.5, "nthread": 1}, rounds=100, checkpoint_every=10, validation="4ms",
    early_stopping=5, calibration="platt", class_weights="balanced",
)  # fmt: skip


def dataset(matrix: Matrix, label: Matrix) -> Any:
    """Return rows whose event_time is their id in microseconds: `4ms` are the last 4,000."""
    import ray.data

    columns = {name: pa.array(matrix[:, index]) for index, name in enumerate(FEATURES)}
    ids = pa.array(np.arange(len(label)))
    whole = pa.table(columns | {"label": pa.array(label), "row_id": ids, "event_time": ids})
    order = np.random.default_rng(2).permutation(len(label))
    return ray.data.from_arrow([whole.take(part) for part in np.array_split(order, 4)])


def trained(recipe: XGBoostRecipe, learnable: Learnable, name: str, storage: Path) -> Any:
    return fit(
        recipe, dataset(*learnable), features=FEATURES, label="label", seed=5, run_name=name, storage=storage,
        train_end=len(learnable[1]),
    )  # fmt: skip


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fitting_stops_where_later_rows_are_scored_best_and_scores_become_probabilities(
    ray_session: str, learnable: Learnable, tmp_path: Path
) -> None:
    matrix, label = learnable
    result = trained(STOPPING, learnable, "stopping", tmp_path)
    weight = np.where(label == 1, (label[:CUT] == 0).sum() / (label[:CUT] == 1).sum(), 1).astype(np.float32)
    data = xgboost.QuantileDMatrix(matrix[:CUT], label=label[:CUT], weight=weight[:CUT])
    later = xgboost.QuantileDMatrix(matrix[CUT:], label=label[CUT:], weight=weight[CUT:], ref=data)
    peer = xgboost.train(
        parameters(STOPPING, 5), data, 100, evals=[(later, "later")], early_stopping_rounds=5, verbose_eval=False
    )
    kept = result.booster.num_boosted_rounds()
    assert result.rows == CUT
    assert kept < result.rounds == kept + 5 < 100
    assert kept == peer.best_iteration + 1
    found = result.predict(matrix[CUT:])
    assert isinstance(decode(result.booster.attr(ATTRIBUTE)), Platt)
    assert found.mean() == pytest.approx(label[CUT:].mean(), abs=0.01), "balanced weights alone say far too much"
    raw = result.booster.inplace_predict(matrix[CUT:])
    assert raw.mean() > 1.3 * label[CUT:].mean()
    assert (np.diff(found[np.argsort(raw, kind="stable")]) >= -TOLERANCE).all()
    for name, file in result.models().items():
        np.testing.assert_allclose(open_backend(name, file).predict(matrix[CUT:]), found, rtol=0, atol=TOLERANCE)


@pytest.mark.ray
@pytest.mark.soak
@pytest.mark.timeout(600)
def test_two_workers_share_the_rows_and_make_the_same_trees_again(
    ray_session: str, learnable: Learnable, tmp_path: Path
) -> None:
    recipe = XGBoostRecipe(
        params={"max_depth": 4, "eta": 0.3, "nthread": 1, "subsample": 0.8}, rounds=20, workers=2, validation="4ms",
        early_stopping=5,
    )  # fmt: skip
    first, second = (trained(recipe, learnable, f"two-{run}", tmp_path) for run in range(2))
    assert first.rows == CUT // 2
    assert first.booster.save_raw("json") == second.booster.save_raw("json")
    alone = boosted_alone(recipe, learnable)
    matrix = learnable[0][CUT:]
    difference = np.abs(first.predict(matrix) - alone.inplace_predict(matrix))
    assert difference.mean() < 0.05, "the same signal, found by two"


def boosted_alone(recipe: XGBoostRecipe, learnable: Learnable) -> Any:
    data = xgboost.QuantileDMatrix(learnable[0][:CUT], label=learnable[1][:CUT])
    return boost(data, params=parameters(recipe, 5), rounds=20)


losses = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(losses, st.integers(1, 10), st.integers(0, 39))
def test_a_restart_does_not_forget_the_best_round(values: list[float], patience: int, killed: int) -> None:
    unbroken, first = Best(patience), Best(patience)
    ends = [unbroken.see(index + 1, "logloss", value) for index, value in enumerate(values)]
    stop = ends.index(True) if True in ends else len(values)
    cut = min(killed, stop)
    for index in range(cut):
        first.see(index + 1, "logloss", values[index])
    resumed = Best(patience, rounds=first.rounds, loss=first.loss)
    again = [resumed.see(index + 1, "logloss", values[index]) for index in range(cut, min(stop + 1, len(values)))]
    assert again == ends[cut : stop + 1]


@pytest.mark.parametrize("metric", ["auc", "aucpr", "ndcg@5", "map"])
def test_of_some_measures_more_is_better(metric: str) -> None:
    best = Best(2)
    assert [best.see(index, metric, value) for index, value in enumerate((0.5, 0.7, 0.6, 0.6), 1)] == [
        False, False, False, True,
    ]  # fmt: skip
    assert best.rounds == 2


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"objective": "rank:ndcg"}, "recipe.objective"),
        ({"calibration": "beta", "validation": "1d"}, "recipe.calibration"),
        ({"calibration": "platt"}, "recipe.validation"),
        ({"early_stopping": 5}, "recipe.validation"),
        ({"class_weights": "even"}, "recipe.class_weights"),
        ({"class_weights": "balanced", "objective": "reg:squarederror"}, "recipe.class_weights"),
        ({"calibration": "platt", "validation": "1d", "objective": "count:poisson"}, "recipe.calibration"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        XGBoostRecipe(params={}, rounds=1, **fields)
    assert caught.value.field == names


def test_classes_are_weighed_once() -> None:
    recipe = XGBoostRecipe(params={"scale_pos_weight": 2}, rounds=1, class_weights="balanced")
    with pytest.raises(InvalidValue, match="weighs classes a second time"):
        parameters(recipe, 1)


def test_a_categorical_must_be_a_feature() -> None:
    recipe = XGBoostRecipe(params={}, rounds=1, categorical=("f9",))
    with pytest.raises(DefinitionError, match=r"recipe.categorical: 'f9' is no feature; known: f0, f1"):
        shape_of(recipe, None, features=FEATURES, label="label", train_end=None)


def test_what_a_worker_is_told_survives_the_way() -> None:
    import msgspec

    shape = Shape(features=FEATURES, label="y", weight="w", class_weights={1: 3.5}, categorical=("f1",), cut=7)
    told = WorkerConfig(params={"eta": 0.1, "nthread": 1, "tree_method": "hist"}, rounds=3, every=1, shape=shape)
    assert msgspec.convert(msgspec.to_builtins(told), WorkerConfig) == told
    assert shape.types == ["q", "c", "q", "q", "q", "q"]
