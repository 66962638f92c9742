"""What a Ray Train worker does for the XGBoost recipe: quantise its rows, continue from a checkpoint, report.

Ray's own report callback reports every round, and each report waits for the controller's next poll: 100 rounds took
223 s where XGBoost alone took 4.3 s. This one reports only where a checkpoint is written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headway.core.clock import SystemClock
from headway.core.ray_session import run_in_background
from headway.models.probe import peak_memory
from headway.training.lock import require_asked
from headway.training.recipes.checkpoints import newest_sound, seal
from headway.training.recipes.rows import Rows, Shape

if TYPE_CHECKING:
    import xgboost

CHECKPOINT_FILE = "model.json"
WORKER_FILE = "worker.json"
VALIDATION = "validation"
_GREATER_IS_BETTER = ("auc", "aucpr", "map", "ndcg", "pre")


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
    memory: int = 0
    """Largest resident size of the worker, bytes; blocks in shared memory count as far as it touched them."""
    damaged: int = 0
    """Newer checkpoints that were damaged and passed over."""
    best_rounds: int = 0
    """Rounds of the best loss on the validation rows; 0: without early stopping."""
    best_loss: float | None = None


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What every worker is told."""

    params: Mapping[str, float | int | str]
    rounds: int
    every: int
    shape: Shape
    early_stopping: int | None = None


@dataclass
class Best:
    """The best validation loss so far, for early stopping that survives a restart."""

    patience: int
    rounds: int = 0
    loss: float | None = None

    def go_on(self, state: WorkerState) -> None:
        """Take over what a checkpoint's worker had seen."""
        self.rounds, self.loss = state.best_rounds, state.best_loss

    def see(self, rounds: int, metric: str, value: float) -> bool:
        """Take in a round's measure; return whether fitting should end."""
        loss = -value if metric.partition("@")[0] in _GREATER_IS_BETTER else value
        if self.loss is None or loss < self.loss:
            self.rounds, self.loss = rounds, loss
        return rounds - self.rounds >= self.patience


def boost(
    data: Any,
    *,
    params: Mapping[str, float | int | str],
    rounds: int,
    validation: Any = None,
    start: xgboost.Booster | None = None,
    callbacks: Iterable[Any] = (),
) -> xgboost.Booster:
    """Fit `rounds` trees in all on a QuantileDMatrix, continuing after those of `start`."""
    import xgboost

    done = 0 if start is None else start.num_boosted_rounds()
    return xgboost.train(
        dict(params),
        data,
        num_boost_round=rounds - done,
        evals=[] if validation is None else [(validation, VALIDATION)],
        verbose_eval=False,
        xgb_model=start,
        callbacks=list(callbacks) or None,
    )


def bins_of(params: Mapping[str, float | int | str]) -> int | None:
    """Return `max_bin`, which matrix and booster must agree on."""
    return None if "max_bin" not in params else int(params["max_bin"])


def train_worker(config: dict[str, Any]) -> None:
    """Run on each Ray Train worker: read its part, continue from the newest checkpoint, report at checkpoints."""
    import ray.train
    import xgboost

    clock = SystemClock()
    started = clock.monotonic()
    run_in_background()
    require_asked()
    told = msgspec.convert(config, WorkerConfig)
    threads = int(told.params["nthread"])
    bins = bins_of(told.params)
    rows = _read("train", told.shape)
    data = rows.quantised(threads=threads, max_bin=bins)
    validation = None
    if told.early_stopping is not None:
        validation = _read(VALIDATION, told.shape).quantised(threads=threads, max_bin=bins, like=data)
    read = clock.monotonic()
    start = None
    best = None if told.early_stopping is None else Best(told.early_stopping)
    checkpoint = ray.train.get_checkpoint()
    damaged = 0
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            found, damaged = newest_sound(Path(folder), CHECKPOINT_FILE)
            if found is not None:
                start = xgboost.Booster(model_file=str(found / CHECKPOINT_FILE))
                if best is not None:
                    best.go_on(msgspec.json.decode((found / WORKER_FILE).read_bytes(), type=WorkerState))
    done = 0 if start is None else start.num_boosted_rounds()
    if done >= told.rounds or (best is not None and done - best.rounds >= best.patience):
        return

    labels = rows.labels

    def report(rounds: int, booster: xgboost.Booster) -> None:
        state = WorkerState(
            rounds=rounds, resumed_from=done, pid=os.getpid(), rows=len(labels), read_s=read - started,
            fit_s=clock.monotonic() - read, memory=peak_memory(), best_rounds=best.rounds if best else 0,
            best_loss=best.loss if best else None, damaged=damaged,
        )  # fmt: skip
        _report(state, booster)

    callback = checkpoint_callback(every=told.every, total=told.rounds, report=report, best=best)
    boost(data, params=told.params, rounds=told.rounds, validation=validation, start=start, callbacks=[callback])


def _read(name: str, shape: Shape) -> Rows:
    """Return this worker's part of a dataset."""
    import ray.train

    shard = ray.train.get_dataset_shard(f"{name}-{ray.train.get_context().get_world_rank()}")
    return Rows(shard.iter_batches(batch_size=None, batch_format="pyarrow"), shape)


def checkpoint_callback(
    *, every: int, total: int, report: Callable[[int, xgboost.Booster], None], best: Best | None = None
) -> Any:
    """Return an XGBoost callback that calls `report(rounds, booster)` every `every` rounds and after the last.

    With `best` the last round is the one after which the validation loss has not become better for long enough.
    """
    from xgboost.callback import TrainingCallback

    class Checkpoints(TrainingCallback):  # type: ignore[misc]  # untyped base that xgboost insists on
        """Counts rounds by the model itself, so that a resumed run keeps the schedule."""

        def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002 -- xgboost's signature
            rounds = int(model.num_boosted_rounds())
            end = False
            if best is not None:
                metric, values = list(evals_log[VALIDATION].items())[-1]
                end = best.see(rounds, metric, float(values[-1]))
            if end or rounds % every == 0 or rounds == total:
                report(rounds, model)
            return end

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
