"""Gradient-boosted trees: one fitting function, run by Ray Train workers or in this process.

Validation rows are the end of the training range: early stopping and calibration look at them, never at the rows that
the candidate is evaluated on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from headway.core.errors import DefinitionError, InvalidValue, ServiceFailed, names_near
from headway.core.times import EVENT_TIME, parse_duration
from headway.core.types import Matrix
from headway.features.historical import ROW_ID
from headway.models.backends.xgboost import scores
from headway.models.calibration import ATTRIBUTE, decode, encode, fit_calibration
from headway.models.onnx_export import tree_models
from headway.training.definitions import XGBoostRecipe
from headway.training.recipes.checkpoints import sound
from headway.training.recipes.rows import Rows, Shape, pack, packed
from headway.training.recipes.xgboost_worker import (
    CHECKPOINT_FILE,
    VALIDATION,
    WORKER_FILE,
    WorkerConfig,
    WorkerState,
    bins_of,
    boost,
    train_worker,
)

if TYPE_CHECKING:
    import ray.data
    import xgboost

MAX_THREADS = 4
_RESERVED = ("objective", "seed", "num_class", "base_score", "booster")
_POLL = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A finished training."""

    booster: xgboost.Booster
    rounds: int
    resumed_from: int
    rows: int
    """Rows on the first worker."""
    read_s: float
    """Seconds that the first worker took to read and quantise them."""
    fit_s: float
    """Seconds that it took to fit."""
    memory: int = 0
    """Largest resident size of the first worker, bytes."""
    damaged: int = 0
    """Checkpoints passed over, because they were damaged."""

    def predict(self, matrix: Matrix) -> Matrix:
        """Return XGBoost's own scores, calibrated where the recipe says so."""
        return scores(self.booster, decode(self.booster.attr(ATTRIBUTE)), matrix)

    def models(self) -> Mapping[str, bytes]:
        """Return the trees, as they are and as an ONNX graph."""
        return tree_models(self.booster)

    def summary(self) -> str:
        """Return rounds, restarts and seconds."""
        resumed = f", resumed from {self.resumed_from}" if self.resumed_from else ""
        if self.damaged:
            resumed += f", {self.damaged} damaged checkpoint{'s' if self.damaged > 1 else ''} passed over"
        kept = int(self.booster.num_boosted_rounds())
        best = f", the first {kept} kept" if kept < self.rounds else ""
        return f"{self.rounds} rounds{best}{resumed}; worker read {self.read_s:.1f} s, fit {self.fit_s:.1f} s"


def parameters(recipe: XGBoostRecipe, seed: int) -> dict[str, float | int | str]:
    """Return what `xgboost.train` gets; InvalidValue for a parameter that the recipe sets itself."""
    for name in _RESERVED:
        if name in recipe.params:
            raise InvalidValue(f"recipe.params.{name}", "is set by the recipe", hint="remove it")
    if recipe.class_weights is not None and "scale_pos_weight" in recipe.params:
        raise InvalidValue("recipe.params.scale_pos_weight", "weighs classes a second time", hint="keep one of the two")
    defaults: dict[str, float | int | str] = {
        "tree_method": "hist",
        "nthread": max(1, min(MAX_THREADS, (os.cpu_count() or 1) // recipe.workers)),
        "verbosity": 1,
    }
    return defaults | dict(recipe.params) | {"objective": recipe.objective, "seed": seed}


def fit_local(recipe: XGBoostRecipe, matrix: Matrix, label: Matrix, *, seed: int) -> xgboost.Booster:
    """Fit in this process with the worker's code and without validation rows; for benchmarks and small data."""
    features = tuple(f"f{index}" for index in range(matrix.shape[1]))
    columns = {name: pa.array(matrix[:, index]) for index, name in enumerate(features)}
    block = pa.table(columns | {"label": pa.array(label), ROW_ID: pa.array(np.arange(len(label)))})
    shape = Shape(features=features, label="label")
    params = parameters(recipe, seed)
    rows = Rows([pack(block, shape=shape)], shape)
    data = rows.quantised(threads=int(params["nthread"]), max_bin=bins_of(params))
    return boost(data, params=params, rounds=recipe.rounds)


def assemble(batches: Iterable[pa.Table], features: tuple[str, ...], label: str) -> tuple[Matrix, Matrix]:
    """Return (matrix float32 [n, k], label float32 [n]) in the order of `row_id`; nulls become NaN.

    InvalidValue for no rows, or a null label.
    """
    shape = Shape(features=features, label=label)
    rows = Rows((pack(batch, shape=shape) for batch in batches), shape)
    return rows.matrix(), rows.labels


def shape_of(
    recipe: XGBoostRecipe, train: ray.data.Dataset, *, features: tuple[str, ...], label: str, train_end: int | None
) -> Shape:
    """Return which column is what; DefinitionError for a categorical that is no feature, or a cut without an end."""
    for name in recipe.categorical:
        if name not in features:
            raise DefinitionError(
                f"{name!r} is no feature{names_near(name, features)}",
                field="recipe.categorical",
                expected="a feature of the service that holds codes",
            )
    cut = None
    if recipe.validation is not None:
        if train_end is None:
            raise DefinitionError("the training range has no end", field="recipe.validation", expected="None")
        cut = train_end - parse_duration(recipe.validation, field="recipe.validation")
    given = recipe.class_weights
    shape = Shape(
        features=features, label=label, weight=recipe.weight, categorical=recipe.categorical, cut=cut,
        class_weights={} if given is None or isinstance(given, str) else dict(given),
    )  # fmt: skip
    if given == "balanced":
        negative, positive = _class_counts(train, shape)
        return msgspec.structs.replace(shape, class_weights={1: negative / positive})
    return shape


def _class_counts(train: ray.data.Dataset, shape: Shape) -> tuple[int, int]:
    """Return (negatives, positives) of the rows that are trained on."""
    columns = [shape.label, *([] if shape.cut is None else [EVENT_TIME])]
    rows = positive = 0
    for block in train.select_columns(columns).iter_batches(batch_format="pyarrow", batch_size=None):
        label = block[shape.label].to_numpy()
        if shape.cut is not None:
            label = label[block[EVENT_TIME].to_numpy() < shape.cut]
        rows, positive = rows + len(label), positive + int((label == 1).sum())
    if positive in (0, rows):
        raise InvalidValue(
            shape.label, f"{rows} rows of one class before the validation rows", hint="widen `train`, or `validation`"
        )
    return rows - positive, positive


def fit(
    recipe: XGBoostRecipe,
    train: ray.data.Dataset,
    *,
    features: tuple[str, ...],
    label: str,
    seed: int,
    run_name: str,
    storage: Path,
    train_end: int | None = None,
) -> Fit:
    """Train on Ray Train; a lost worker is replaced and continues from the last checkpoint.

    Args:
        recipe: Rounds, parameters, workers and failures survived.
        train: Columns `features`, `label`, `row_id`; the weight, and event_time where rows are kept for validation.
        features: Order of the matrix's columns.
        label: Label column.
        seed: Of the booster.
        run_name: Unique per training: a second run of this name resumes the first one's checkpoints.
        storage: Folder for checkpoints that workers and driver share; the run's part is removed after success.
        train_end: End of the training range, UTC microseconds.

    Raises ServiceFailed when more workers are lost than `max_failures`.
    """
    shape = shape_of(recipe, train, features=features, label=label, train_end=train_end)
    told = WorkerConfig(
        params=parameters(recipe, seed), rounds=recipe.rounds, every=recipe.checkpoint_every, shape=shape,
        early_stopping=recipe.early_stopping,
    )  # fmt: skip
    booster, state = _distributed(recipe, train, told, run_name, storage)
    if recipe.early_stopping is not None:
        booster = booster[: state.best_rounds]
    if recipe.calibration is not None:
        unweighted = msgspec.structs.replace(shape, class_weights={})
        blocks = packed(train, unweighted, validation=True).iter_batches(batch_format="pyarrow", batch_size=None)
        rows = Rows(blocks, unweighted)
        margin = np.asarray(booster.inplace_predict(rows.matrix(), predict_type="margin"), dtype=np.float32)
        found = fit_calibration(recipe.calibration, margin, rows.labels, rows.weights)
        booster.set_attr(**{ATTRIBUTE: encode(found)})
    return Fit(
        booster=booster,
        rounds=state.rounds,
        resumed_from=state.resumed_from,
        rows=state.rows,
        read_s=state.read_s,
        fit_s=state.fit_s,
        memory=state.memory,
        damaged=state.damaged,
    )


def _distributed(
    recipe: XGBoostRecipe, train: ray.data.Dataset, told: WorkerConfig, run_name: str, storage: Path
) -> tuple[xgboost.Booster, WorkerState]:
    """Return the last checkpoint of a Ray Train run.

    Each worker has datasets of its own, parted by row id: which rows it gets does not depend on who asks first.
    """
    import xgboost
    from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.train.xgboost import XGBoostTrainer

    datasets = {}
    for rank in range(recipe.workers):
        datasets[f"train-{rank}"] = packed(train, told.shape, part=rank, of=recipe.workers)
        if recipe.early_stopping is not None:
            datasets[f"{VALIDATION}-{rank}"] = packed(train, told.shape, validation=True, part=rank, of=recipe.workers)
    trainer = XGBoostTrainer(
        train_worker,
        train_loop_config=msgspec.to_builtins(told),
        scaling_config=ScalingConfig(num_workers=recipe.workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=run_name,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=recipe.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
        datasets=datasets,
        dataset_config=DataConfig(datasets_to_split=[]),
    )
    try:
        with _environment(_POLL):
            result = trainer.fit()
    except TrainingFailedError as error:
        raise ServiceFailed(
            f"training {run_name} failed: {error}", hint=f"checkpoints are kept under {storage.name}/{run_name}"
        ) from error
    with result.checkpoint.as_directory() as folder:
        if not sound(Path(folder), CHECKPOINT_FILE):
            raise ServiceFailed(f"the last checkpoint of training {run_name} is damaged", hint="train again")
        booster = xgboost.Booster(model_file=str(Path(folder) / CHECKPOINT_FILE))
        state = msgspec.json.decode((Path(folder) / WORKER_FILE).read_bytes(), type=WorkerState)
    shutil.rmtree(storage / run_name)
    return booster, state


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, for the time of a call: the Train controller inherits them from its driver."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
