"""A candidate's measures on the evaluation range, with intervals, because a gate on a point estimate is a coin toss.

Intervals are 90 % percentile bootstraps: over rows for rankings and losses, over days for card precision, whose days
depend on one another through the cards already found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from headway.core.types import Int64
from headway.training.metrics import Ranking, card_precision, squared_errors, surprise

RESAMPLES = 100
_TAIL = 5.0


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One metric."""

    value: float
    low: float
    """5th percentile of the bootstrap."""
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
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Mapping[str, Measure]:
    """Return every metric that the columns allow; InvalidValue for labels of one class or NaN scores."""
    labels = np.asarray(label, dtype=np.float64)
    scores = np.asarray(score, dtype=np.float64)
    ranking = Ranking(labels, scores)
    squares, nats = squared_errors(labels, scores), surprise(labels, scores)
    generator = np.random.default_rng(seed)
    names = ("roc_auc", "average_precision", "brier", "log_loss")

    def measure(weight: npt.NDArray[np.float64] | None) -> tuple[float, ...]:
        return (
            ranking.roc_auc(weight),
            ranking.average_precision(weight),
            float(np.average(squares, weights=weight)),
            float(np.average(nats, weights=weight)),
        )

    rows = len(labels)
    draws = np.asarray(
        [
            measure(np.bincount(generator.integers(0, rows, rows), minlength=rows).astype(np.float64))
            for _ in range(resamples)
        ]
    )
    measures = {
        name: _interval(value, draws[:, index], rows)
        for index, (name, value) in enumerate(zip(names, measure(None), strict=True))
    }
    if group is not None:
        days = card_precision(labels, scores, group, event_time)
        means = generator.choice(days, size=(resamples, len(days))).mean(axis=1)
        measures["card_precision_at_100"] = _interval(float(days.mean()), means, len(days))
    return measures


def _interval(value: float, draws: npt.NDArray[np.float64], n: int) -> Measure:
    defined = draws[~np.isnan(draws)]  # a resample of one class has no ranking
    low, high = np.percentile(defined, [_TAIL, 100 - _TAIL]) if len(defined) else (value, value)
    return Measure(value=value, low=float(low), high=float(high), n=n)
