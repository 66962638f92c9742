"""Walk-forward backtest: the job as it would have been trained at earlier times, measured on what came after each.

Every fold is a training of the same definition at an earlier time, from the same snapshots, with the labels known by
then and no others; nothing is signed or registered. Evaluation ranges do not overlap, so the folds tell how a version
would have fared from one retraining to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headway.core.errors import InvalidValue
from headway.core.progress import Progress
from headway.core.times import format_time, parse_duration
from headway.core.types import Principal
from headway.features.lake.reader import LakeReader
from headway.training.dataset import TrainingData, build, pin_snapshots
from headway.training.definitions import TrainingJob
from headway.training.evaluate import Measure
from headway.training.fitted import Fitted
from headway.training.gates.judge import measure, rows_of
from headway.training.measuring import LOSSES
from headway.training.steps import fit_rows

Fit = Callable[[TrainingData, int], Fitted]
"""Fits the training rows of a fold, given its time."""
MOST_FOLDS = 100


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One training in the past."""

    as_of: str
    """When it would have been trained, RFC 3339."""
    rows: int
    """Training rows."""
    evaluation_rows: int
    metrics: Mapping[str, Measure]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One metric over the folds."""

    mean: float
    worst: float
    """Smallest, or largest of a loss: what a retraining has to live with."""
    slope: float
    """Change per fold by least squares; far from 0: the world moves away from the model."""


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """All folds, the oldest first."""

    use_case: str
    snapshots: Mapping[str, int]
    folds: tuple[Fold, ...]
    metrics: Mapping[str, Spread]


def fold_times(job: TrainingJob, *, as_of: int, folds: int, every: str | None = None) -> list[int]:
    """Return the times of the trainings, the oldest first; `every` apart, or the length of the evaluation range.

    InvalidValue for no folds, too many, or steps shorter than the evaluation range: rows would count twice.
    """
    if not 1 <= folds <= MOST_FOLDS:
        raise InvalidValue("backtest", f"{folds} folds", hint=f"from 1 to {MOST_FOLDS}")
    step = parse_duration(every or job.evaluate, field="every")
    if step < parse_duration(job.evaluate, field="evaluate"):
        raise InvalidValue("every", f"{every} is shorter than the evaluation range {job.evaluate}")
    return [as_of - step * back for back in reversed(range(folds))]


def backtest(
    job: TrainingJob,
    *,
    as_of: int,
    folds: int,
    every: str | None = None,
    reader: LakeReader,
    principal: Principal,
    progress: Progress,
    fit_fold: Fit,
) -> Backtest:
    """Train and measure the job at `folds` times up to `as_of` (UTC microseconds), all on today's snapshots.

    Raises:
        Forbidden: the principal lacks `train:<use case>`, or may not read a source for its purpose.
        InvalidValue: no such folds, or one has a range without rows or with labels of one class.
    """
    principal.require("train", job.use_case)
    snapshots = pin_snapshots(job, reader)
    found = []
    for number, moment in enumerate(fold_times(job, as_of=as_of, folds=folds, every=every)):
        with progress.stage(f"fold {number + 1} of {folds}") as stage:
            data = build(job, reader, as_of=moment, principal=principal, snapshots=snapshots)
            fitted = fit_fold(data, moment)
            evaluation = data.evaluation()
            metrics = measure(rows_of(job, evaluation, fitted.predict(evaluation.matrix)))
            fold = Fold(
                as_of=format_time(moment), rows=data.rows, evaluation_rows=data.evaluation_rows, metrics=metrics
            )
            del data  # gives the object store back before the next fold fills it
            stage.note(f"{fold.as_of}: " + ", ".join(f"{name} {m.value:.3f}" for name, m in metrics.items()))
        found.append(fold)
    return Backtest(use_case=job.use_case, snapshots=snapshots, folds=tuple(found), metrics=spreads(found))


def spreads(folds: list[Fold]) -> dict[str, Spread]:
    """Return each metric over the folds."""
    found = {}
    for name in folds[0].metrics:
        values = np.array([fold.metrics[name].value for fold in folds])
        slope = float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0
        worst = values.max() if name in LOSSES else values.min()
        found[name] = Spread(mean=float(values.mean()), worst=float(worst), slope=slope)
    return found


def on_ray(job: TrainingJob, project: Path, storage: Path, run_name: str) -> Fit:
    """Return how a fold is fitted on the cluster: as the pipeline does it, in a run of its own."""

    def fold(data: TrainingData, as_of: int) -> Fitted:
        return fit_rows(data, job, project, as_of, f"{run_name}-{as_of}", storage)

    return fold
