"""The fitting code, alone and under Ray Train."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from headway.core.errors import InvalidValue, ServiceFailed
from headway.core.types import Matrix
from headway.training.definitions import XGBoostRecipe
from headway.training.recipes.rows import Rows, Shape, pack
from headway.training.recipes.xgboost import assemble, fit, fit_local, parameters
from headway.training.recipes.xgboost_worker import WORKER_FILE, WorkerState, boost, checkpoint_callback

Learnable = tuple[Matrix, Matrix]
FEATURES = tuple(f"f{index}" for index in range(6))
RECIPE = XGBoostRecipe(params={"max_depth": 4, "eta": 0.2, "nthread": 2}, rounds=30, checkpoint_every=10)


def as_table(matrix: Matrix, label: Matrix, ids: np.ndarray) -> pa.Table:
    columns = {name: pa.array(matrix[:, index]) for index, name in enumerate(FEATURES)}
    return pa.table(columns | {"label": pa.array(label), "row_id": pa.array(ids)})


def shuffled(matrix: Matrix, label: Matrix, blocks: int) -> list[pa.Table]:
    order = np.random.default_rng(1).permutation(len(matrix))
    return [as_table(matrix[part], label[part], part) for part in np.array_split(order, blocks)]


def quantised(matrix: Matrix, label: Matrix) -> Any:
    shape = Shape(features=FEATURES, label="label")
    return Rows([pack(block, shape=shape) for block in shuffled(matrix, label, 5)], shape).quantised(threads=1)


def test_assemble_restores_the_order_of_row_ids(learnable: Learnable) -> None:
    matrix, label = learnable
    got_matrix, got_label = assemble(shuffled(matrix, label, 7), FEATURES, "label")
    np.testing.assert_array_equal(got_matrix, matrix)
    np.testing.assert_array_equal(got_label, label)


def test_assemble_keeps_a_part_in_order(learnable: Learnable) -> None:
    matrix, label = learnable
    got, _ = assemble(shuffled(matrix, label, 7)[2:4], FEATURES, "label")
    part = np.sort(np.concatenate(np.array_split(np.random.default_rng(1).permutation(len(matrix)), 7)[2:4]))
    np.testing.assert_array_equal(got, matrix[part])


def test_assemble_reads_nulls_as_nan_and_refuses_null_labels() -> None:
    table = pa.table(
        {name: pa.array([1.0, None], pa.float32()) for name in FEATURES}
        | {"label": pa.array([0.0, 1.0]), "row_id": pa.array([1, 0])}
    )
    matrix, label = assemble([table], FEATURES, "label")
    assert np.isnan(matrix[0]).all()
    assert label.tolist() == [1.0, 0.0]
    unknown = table.set_column(6, "label", pa.array([None, 1.0], pa.float32()))
    with pytest.raises(InvalidValue, match="label"):
        assemble([unknown], FEATURES, "label")


def test_no_rows_is_said_with_a_way_out() -> None:
    with pytest.raises(InvalidValue, match="no rows in the training range"):
        assemble([], FEATURES, "label")


@pytest.mark.parametrize("name", ["objective", "seed"])
def test_parameters_that_the_recipe_sets_are_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match=f"recipe.params.{name}"):
        parameters(XGBoostRecipe(params={name: 1}, rounds=1), seed=1)


def test_fitting_twice_gives_the_same_trees(learnable: Learnable) -> None:
    first, second = (fit_local(RECIPE, *learnable, seed=5) for _ in range(2))
    assert first.save_raw("json") == second.save_raw("json")
    assert first.num_boosted_rounds() == RECIPE.rounds


def test_a_resumed_fit_reports_on_schedule_and_predicts_like_an_unbroken_one(learnable: Learnable) -> None:
    params = parameters(RECIPE, seed=5)
    reported: list[int] = []
    callback = checkpoint_callback(every=10, total=25, report=lambda rounds, _: reported.append(rounds))
    data = quantised(*learnable)
    part = boost(data, params=params, rounds=12, callbacks=[callback])
    whole = boost(data, params=params, rounds=25, start=part, callbacks=[callback])
    assert reported == [10, 20, 25]
    unbroken = boost(data, params=params, rounds=25)
    np.testing.assert_allclose(
        whole.inplace_predict(learnable[0]), unbroken.inplace_predict(learnable[0]), atol=1e-4, rtol=0
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_train_fits_the_same_trees_as_the_local_fit(ray_session: str, learnable: Learnable, tmp_path: Path) -> None:
    import ray.data

    result = fit(
        RECIPE,
        ray.data.from_arrow(shuffled(*learnable, 4)),
        features=FEATURES,
        label="label",
        seed=5,
        run_name="same-trees",
        storage=tmp_path,
    )
    assert (result.rounds, result.resumed_from, result.rows) == (RECIPE.rounds, 0, len(learnable[0]))
    local = fit_local(RECIPE, *learnable, seed=5)
    np.testing.assert_array_equal(result.booster.inplace_predict(learnable[0]), local.inplace_predict(learnable[0]))
    assert not (tmp_path / "same-trees").exists()


class Killer(threading.Thread):
    """Kills the training worker with SIGKILL once the controller has taken note of a checkpoint."""

    def __init__(self, run: Path, limit_s: float = 300.0) -> None:
        super().__init__(daemon=True)
        self.run_folder = run
        self.limit_s = limit_s
        self.killed: WorkerState | None = None

    def run(self) -> None:
        end = time.monotonic() + self.limit_s
        noted = self.run_folder / "checkpoint_manager_snapshot.json"  # Ray Train's own record
        while time.monotonic() < end:
            if not noted.exists() or "checkpoint_2" not in noted.read_text():
                time.sleep(0.01)
                continue
            for path in self.run_folder.glob(f"*/{WORKER_FILE}"):
                try:
                    state = msgspec.json.decode(path.read_bytes(), type=WorkerState)
                    os.kill(state.pid, signal.SIGKILL)
                except (msgspec.DecodeError, FileNotFoundError):
                    continue  # half written, or already replaced by a newer one
                self.killed = state
                return


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_is_replaced_and_resumes_from_a_checkpoint(
    ray_session: str, learnable: Learnable, tmp_path: Path
) -> None:
    import ray.data

    recipe = XGBoostRecipe(params={"max_depth": 6, "nthread": 1}, rounds=400, checkpoint_every=10, max_failures=1)
    killer = Killer(tmp_path / "killed")
    killer.start()
    result = fit(
        recipe,
        ray.data.from_arrow(shuffled(*learnable, 4)),
        features=FEATURES,
        label="label",
        seed=5,
        run_name="killed",
        storage=tmp_path,
    )
    killer.join(5)
    assert killer.killed is not None, "the worker finished before it could be killed"
    assert killer.killed.resumed_from == 0
    assert result.rounds == result.booster.num_boosted_rounds() == 400
    assert 10 <= result.resumed_from < 400


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_more_failures_than_allowed_are_an_error_that_says_where_the_checkpoints_are(
    ray_session: str, learnable: Learnable, tmp_path: Path
) -> None:
    import ray.data

    recipe = XGBoostRecipe(params={"max_depth": 6, "nthread": 1}, rounds=400, checkpoint_every=10, max_failures=0)
    killer = Killer(tmp_path / "hopeless")
    killer.start()
    with pytest.raises(ServiceFailed, match="hopeless"):
        fit(
            recipe,
            ray.data.from_arrow(shuffled(*learnable, 2)),
            features=FEATURES,
            label="label",
            seed=5,
            run_name="hopeless",
            storage=tmp_path,
        )
    killer.join(5)
    assert killer.killed is not None
    assert list((tmp_path / "hopeless").glob(f"*/{WORKER_FILE}"))
