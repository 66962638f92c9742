"""A candidate's measures on the evaluation range, with intervals, because a gate on a point estimate is a coin toss.

Intervals hold 90 %: DeLong's for the area under the ROC curve of independent rows, percentiles of a bootstrap for the
rest; over rows, or over blocks where rows depend on one another. Card precision is resampled over days, which depend on
one another through the cards already found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from headway.core.types import Int64
from headway.training.delong import area_interval
from headway.training.measuring import Task, prepare
from headway.training.measuring import resamples as drawn_weights
from headway.training.metrics import card_precision

RESAMPLES = 100
TAIL = 0.05
"""Beyond each end of an interval."""
CARDS = "card_precision_at_100"


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One metric."""

    value: float
    low: float
    """5th percentile."""
    high: float
    """95th percentile."""
    n: int
    """Rows, or days for card precision."""


def evaluate(
    label: npt.ArrayLike,
    score: npt.ArrayLike,
    *,
    event_time: Int64,
    group: npt.NDArray[Any] | None = None,
    blocks: npt.NDArray[Any] | None = None,
    task: Task = "binary",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Mapping[str, Measure]:
    """Return every metric that the columns allow.

    Args:
        label: 0/1, numbers, or codes of classes [n].
        score: Probabilities or numbers [n]; for several classes [n, classes].
        event_time: UTC microseconds [n].
        group: Keys for card precision [n].
        blocks: Rows of one block depend on one another [n].
        task: What the metrics are of.
        seed: Of the bootstrap.
        resamples: How many draws.

    Raises InvalidValue for labels of one class or NaN scores.
    """
    labels = np.asarray(label)
    metrics, rows = prepare(task, labels, score), len(labels)
    drawn = [metrics(weight) for weight in drawn_weights(rows, blocks, resamples, seed)]
    measures = {
        name: interval(value, np.array([draw[name] for draw in drawn]), rows) for name, value in metrics(None).items()
    }
    if task == "binary" and blocks is None:
        value, low, high = area_interval(labels, score, tail=TAIL)
        measures["roc_auc"] = Measure(value=value, low=low, high=high, n=rows)
    if task == "binary" and group is not None:
        days = card_precision(labels, score, group, event_time)
        generator = np.random.default_rng(seed)
        means = generator.choice(days, size=(resamples, len(days))).mean(axis=1)
        measures[CARDS] = interval(float(days.mean()), means, len(days))
    return measures


def interval(value: float, draws: npt.NDArray[np.float64], n: int, tail: float = TAIL) -> Measure:
    """Return the measure with percentiles of its draws; those without a value (one class only) do not count."""
    defined = draws[~np.isnan(draws)]
    low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (value, value)
    return Measure(value=value, low=float(low), high=float(high), n=n)
