"""Metrics by the kind of a task, prepared once and then computed for any weights: what resampling is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headway.core.times import DAY
from headway.core.types import Int64
from headway.training import numbers
from headway.training.judging import DAYS
from headway.training.metrics import Float64, Ranking, squared_errors, surprise

Task = Literal["binary", "regression", "multiclass"]
Metrics = Callable[[Float64 | None], Mapping[str, float]]
"""Weights of the rows → metric → value; NaN where the weighted rows have none."""
NAMES: Mapping[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "average_precision", "brier", "log_loss"),
    "regression": ("rmse", "mae", "r2"),
    "multiclass": ("macro_f1", "accuracy", "log_loss"),
}
LOSSES = frozenset({"brier", "log_loss", "rmse", "mae"})
"""Smaller is better."""


def prepare(task: Task, label: npt.ArrayLike, score: npt.ArrayLike, names: Collection[str] = ()) -> Metrics:
    """Return the task's metrics, or those of `names`, as a function of weights; InvalidValue for unfit columns."""
    functions = {"binary": _binary, "regression": _regression, "multiclass": _multiclass}[task](label, score)
    kept = {name: function for name, function in functions.items() if not names or name in names}
    return lambda weight: {name: function(weight) for name, function in kept.items()}


def resamples(rows: int, blocks: npt.NDArray[Any] | None, count: int, seed: int) -> Iterator[Float64]:
    """Yield `count` weights of rows: how often a bootstrap draws each; rows of one block are drawn together."""
    generator = np.random.default_rng(seed)
    code = None if blocks is None else np.unique(blocks, return_inverse=True)[1]
    units = rows if code is None else int(code.max()) + 1
    for _ in range(count):
        drawn = np.bincount(generator.integers(0, units, units), minlength=units).astype(np.float64)
        yield drawn if code is None else drawn[code]


def blocks_of(name: str | None, event_time: Int64, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """Return what ties rows together: UTC days for `day`, or a column; None: rows are independent."""
    if name is None:
        return None
    return event_time // DAY if name == DAYS else columns[name]


def _binary(label: npt.ArrayLike, score: npt.ArrayLike) -> Mapping[str, Callable[[Float64 | None], float]]:
    ranking = Ranking(label, score)
    squares, nats = squared_errors(label, score), surprise(label, score)
    return {
        "roc_auc": ranking.roc_auc,
        "average_precision": ranking.average_precision,
        "brier": lambda weight: float(np.average(squares, weights=weight)),
        "log_loss": lambda weight: float(np.average(nats, weights=weight)),
    }


def _regression(label: npt.ArrayLike, score: npt.ArrayLike) -> Mapping[str, Callable[[Float64 | None], float]]:
    labels, scores = numbers.checked_numbers(label, score)
    return {
        "rmse": lambda weight: numbers.rmse(labels, scores, weight),
        "mae": lambda weight: numbers.mae(labels, scores, weight),
        "r2": lambda weight: numbers.r2(labels, scores, weight),
    }


def _multiclass(label: npt.ArrayLike, score: npt.ArrayLike) -> Mapping[str, Callable[[Float64 | None], float]]:
    labels, scores = numbers.checked_classes(label, score)
    told, classes = scores.argmax(axis=1), scores.shape[1]
    return {
        "macro_f1": lambda weight: numbers.macro_f1(numbers.confusion(labels, told, classes, weight)),
        "accuracy": lambda weight: numbers.accuracy(numbers.confusion(labels, told, classes, weight)),
        "log_loss": lambda weight: numbers.log_loss(labels, scores, weight),
    }
