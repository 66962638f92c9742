"""Gradient-boosted trees: one fitting function, run by a Ray Train worker or in this process.

Ray's own report callback reports every round, and each report waits for the controller's next poll: 100 rounds took
223 s where XGBoost alone took 4.3 s. This one reports only where a checkpoint is written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from headway.core.clock import SystemClock
from headway.core.errors import InvalidValue, ServiceFailed
from headway.core.ray_session import run_in_background
from headway.core.types import Matrix
from headway.features.historical import ROW_ID
from headway.models.onnx_export import tree_models
from headway.training.definitions import XGBoostRecipe
from headway.training.lock import require_asked
from headway.training.recipes.checkpoints import newest_sound, seal, sound

if TYPE_CHECKING:
    import ray.data
    import xgboost

CHECKPOINT_FILE = "model.json"
WORKER_FILE = "worker.json"
MAX_THREADS = 4
_RESERVED = ("objective", "seed", "num_class")
_POLL = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """Which worker wrote a checkpoint, kept beside the model for whoever has to explain a restart."""

    rounds: int
    resumed_from: int
    """Rounds of the checkpoint that the worker started from; 0: from the beginning."""
    pid: int
    rows: int
    read_s: float
    """Seconds from the start of the worker to its matrix."""
    fit_s: float
    """Seconds from there to this checkpoint."""
    damaged: int = 0
    """Newer checkpoints that were damaged and passed over."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A finished training."""

    booster: xgboost.Booster
    rounds: int
    resumed_from: int
    rows: int
    """Rows on the first worker."""
    read_s: float
    """Seconds that the first worker took to read them."""
    fit_s: float
    """Seconds that it took to fit."""
    damaged: int = 0
    """Checkpoints passed over, because they were damaged."""

    def predict(self, matrix: Matrix) -> Matrix:
        """Return XGBoost's own scores."""
        return np.asarray(self.booster.inplace_predict(matrix), dtype=np.float32)

    def models(self) -> Mapping[str, bytes]:
        """Return the trees, as they are and as an ONNX graph."""
        return tree_models(self.booster)

    def summary(self) -> str:
        """Return rounds, restarts and seconds."""
        resumed = f", resumed from {self.resumed_from}" if self.resumed_from else ""
        if self.damaged:
            resumed += f", {self.damaged} damaged checkpoint{'s' if self.damaged > 1 else ''} passed over"
        return f"{self.rounds} rounds{resumed}; worker read {self.read_s:.1f} s, fit {self.fit_s:.1f} s"


def parameters(recipe: XGBoostRecipe, seed: int) -> dict[str, float | int | str]:
    """Return what `xgboost.train` gets; InvalidValue for a parameter that the recipe sets itself."""
    for name in _RESERVED:
        if name in recipe.params:
            raise InvalidValue(f"recipe.params.{name}", "is set by the recipe", hint="remove it")
    defaults: dict[str, float | int | str] = {
        "tree_method": "hist",
        "nthread": min(MAX_THREADS, os.cpu_count() or 1),
        "verbosity": 1,
    }
    return defaults | dict(recipe.params) | {"objective": "binary:logistic", "seed": seed}


def boost(
    matrix: Matrix,
    label: Matrix,
    *,
    params: Mapping[str, float | int | str],
    rounds: int,
    start: xgboost.Booster | None = None,
    callbacks: Iterable[Any] = (),
) -> xgboost.Booster:
    """Fit `rounds` trees in all on float32 [n, k], continuing after those of `start`.

    Only the quantised form of the matrix is kept by XGBoost; NaN is a missing value.
    """
    import xgboost

    data = xgboost.QuantileDMatrix(matrix, label=label, nthread=int(params["nthread"]))
    done = 0 if start is None else start.num_boosted_rounds()
    return xgboost.train(
        dict(params), data, num_boost_round=rounds - done, xgb_model=start, callbacks=list(callbacks) or None
    )


def fit_local(recipe: XGBoostRecipe, matrix: Matrix, label: Matrix, *, seed: int) -> xgboost.Booster:
    """Fit in this process with the worker's code; for benchmarks and small data."""
    return boost(matrix, label, params=parameters(recipe, seed), rounds=recipe.rounds)


def assemble(batches: Iterable[pa.Table], features: tuple[str, ...], label: str) -> tuple[Matrix, Matrix]:
    """Return (matrix float32 [n, k], label float32 [n]) in the order of `row_id`; nulls become NaN.

    Blocks arrive in any order; each is copied once into its place and then dropped, so that at most one copy beside the
    blocks exists. InvalidValue for no rows, or a null label.
    """
    tables = [batch.select([*features, label, ROW_ID]) for batch in batches]
    ids = [np.asarray(table[ROW_ID].to_numpy(), dtype=np.int64) for table in tables]
    total = sum(map(len, ids))
    if total == 0:
        raise InvalidValue("train", "no rows in the training range", hint="load history first, or widen `train`")
    rank = np.empty(total, dtype=np.int64)
    rank[np.argsort(np.concatenate(ids), kind="stable")] = np.arange(total)
    matrix = np.empty((total, len(features)), dtype=np.float32)
    labels = np.empty(total, dtype=np.float32)
    at = total
    while tables:
        table = tables.pop()
        at -= len(table)
        place = rank[at : at + len(table)]
        for column, name in enumerate(features):
            matrix[place, column] = table[name].to_numpy()
        labels[place] = table[label].to_numpy()
    if np.isnan(labels).any():
        raise InvalidValue(label, "holds nulls", hint="a label must be known to be trained on")
    return matrix, labels


def fit(
    recipe: XGBoostRecipe,
    train: ray.data.Dataset,
    *,
    features: tuple[str, ...],
    label: str,
    seed: int,
    run_name: str,
    storage: Path,
) -> Fit:
    """Train on Ray Train; a lost worker is replaced and continues from the last checkpoint.

    Args:
        recipe: Rounds, parameters, workers and failures survived.
        train: Columns `features`, `label` (0/1) and `row_id`.
        features: Order of the matrix's columns.
        label: Label column.
        seed: Of the booster.
        run_name: Unique per training: a second run of this name resumes the first one's checkpoints.
        storage: Folder for checkpoints that workers and driver share; the run's part is removed after success.

    Raises ServiceFailed when more workers are lost than `max_failures`.
    """
    import xgboost
    from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.train.xgboost import XGBoostTrainer

    trainer = XGBoostTrainer(
        train_worker,
        train_loop_config={
            "params": parameters(recipe, seed),
            "rounds": recipe.rounds,
            "every": recipe.checkpoint_every,
            "features": features,
            "label": label,
        },
        scaling_config=ScalingConfig(num_workers=recipe.workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=run_name,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=recipe.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
        datasets={"train": train},
        # one worker reads the blocks itself; a split would cost an actor
        dataset_config=DataConfig(datasets_to_split=[] if recipe.workers == 1 else "all"),
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
    return Fit(
        booster=booster,
        rounds=state.rounds,
        resumed_from=state.resumed_from,
        rows=state.rows,
        read_s=state.read_s,
        fit_s=state.fit_s,
        damaged=state.damaged,
    )


def train_worker(config: dict[str, Any]) -> None:
    """Run on each Ray Train worker: assemble the shard, continue from the newest checkpoint, report at checkpoints."""
    import ray.train
    import xgboost

    clock = SystemClock()
    started = clock.monotonic()
    run_in_background()
    require_asked()
    shard = ray.train.get_dataset_shard("train")
    batches = shard.iter_batches(batch_size=None, batch_format="pyarrow")
    matrix, label = assemble(batches, config["features"], config["label"])
    read = clock.monotonic()
    start = None
    checkpoint = ray.train.get_checkpoint()
    damaged = 0
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            found, damaged = newest_sound(Path(folder), CHECKPOINT_FILE)
            if found is not None:
                start = xgboost.Booster(model_file=str(found / CHECKPOINT_FILE))
    done = 0 if start is None else start.num_boosted_rounds()
    if done >= config["rounds"]:
        return

    def report(rounds: int, booster: xgboost.Booster) -> None:
        state = WorkerState(
            rounds=rounds, resumed_from=done, pid=os.getpid(), rows=len(label), read_s=read - started,
            fit_s=clock.monotonic() - read, damaged=damaged,
        )  # fmt: skip
        _report(state, booster)

    callback = checkpoint_callback(every=config["every"], total=config["rounds"], report=report)
    boost(matrix, label, params=config["params"], rounds=config["rounds"], start=start, callbacks=[callback])


def checkpoint_callback(*, every: int, total: int, report: Callable[[int, xgboost.Booster], None]) -> Any:
    """Return an XGBoost callback that calls `report(rounds, booster)` every `every` rounds and after the last."""
    from xgboost.callback import TrainingCallback

    class Checkpoints(TrainingCallback):  # type: ignore[misc]  # untyped base that xgboost insists on
        """Counts rounds by the model itself, so that a resumed run keeps the schedule."""

        def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002 -- xgboost's signature
            rounds = int(model.num_boosted_rounds())
            if rounds % every == 0 or rounds == total:
                report(rounds, model)
            return False

    return Checkpoints()


def _report(state: WorkerState, booster: xgboost.Booster) -> None:
    """Report from every worker, which is a barrier; the first one brings the checkpoint."""
    import ray.train

    metrics = msgspec.to_builtins(state)
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        booster.save_model(str(Path(folder) / CHECKPOINT_FILE))
        seal(Path(folder), CHECKPOINT_FILE)
        (Path(folder) / WORKER_FILE).write_bytes(msgspec.json.encode(state))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


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
