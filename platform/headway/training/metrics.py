"""Measures of a ranking and of probabilities, from their definitions, on weighted rows so that resampling is cheap.

A bootstrap resample is a vector of whole-number weights over rows sorted once; each measure is then a few cumulative
sums. Labels are 0/1, scores any float; NaN scores are refused, since every measure of them would be a lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.core.times import DAY
from headway.core.types import Int64

Float64 = npt.NDArray[np.float64]
METRICS = ("roc_auc", "average_precision", "brier", "log_loss", "card_precision_at_100")
TOP = 100
_CLIP = 1e-7


def checked(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Return both as float64 [n]; InvalidValue for other labels than 0/1, NaN scores, or a single class."""
    labels, scores = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise InvalidValue("score", f"shape {scores.shape}, labels {labels.shape}")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise InvalidValue("label", "holds other values than 0 and 1")
    if np.isnan(scores).any():
        raise InvalidValue("score", "holds NaN")
    if len(labels) == 0 or labels.min() == labels.max():
        raise InvalidValue("label", f"{len(labels)} rows of one class", hint="widen the range: both classes are needed")
    return labels, scores


class Ranking:
    """Rows sorted by score, greatest first, with the ends of their ties."""

    def __init__(self, label: npt.ArrayLike, score: npt.ArrayLike) -> None:
        labels, scores = checked(label, score)
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        self._positive = labels[self.order]
        self._ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)

    def _cumulative(self, weight: Float64 | None) -> tuple[Float64, Float64]:
        """Return true and false positives at each threshold (end of a tie)."""
        weights = np.ones(len(self.order)) if weight is None else weight[self.order]
        true = np.cumsum(weights * self._positive)[self._ends]
        return true, np.cumsum(weights)[self._ends] - true

    def roc_auc(self, weight: Float64 | None = None) -> float:
        """Area under the ROC curve by trapezoids: P(score of a positive > of a negative) + half of P(equal)."""
        true, false = self._cumulative(weight)
        area = float(np.trapezoid(np.append(0.0, true), np.append(0.0, false)))
        return area / float(true[-1] * false[-1]) if true[-1] and false[-1] else float("nan")

    def average_precision(self, weight: Float64 | None = None) -> float:
        """Sum over thresholds of (recall − previous recall) × precision, not interpolated."""
        true, false = self._cumulative(weight)
        if not true[-1]:
            return float("nan")
        total = true + false
        precision = np.divide(true, total, out=np.zeros_like(true), where=total > 0)
        return float(np.sum(np.diff(true, prepend=0.0) * precision) / true[-1])


def squared_errors(label: npt.ArrayLike, score: npt.ArrayLike) -> Float64:
    """Squared difference of probability and label per row; its mean is the Brier score."""
    labels, scores = checked(label, score)
    return np.square(scores - labels)


def surprise(label: npt.ArrayLike, score: npt.ArrayLike) -> Float64:
    """Negative log-likelihood per row (nats), probabilities kept 1e-7 from 0 and 1; its mean is the log loss."""
    labels, scores = checked(label, score)
    scores = np.clip(scores, _CLIP, 1 - _CLIP)
    return -np.log(np.where(labels == 1, scores, 1 - scores))


def card_precision(
    label: npt.ArrayLike, score: npt.ArrayLike, group: npt.NDArray[Any], event_time: Int64, *, top: int = TOP
) -> Float64:
    """Share of truly compromised cards among the `top` most suspicious ones, per UTC day [days].

    A day's card has its largest score and largest label of that day; compromised cards that were found stay out of
    later days. Handbook of Le Borgne et al. (2022), chapter 4, "Card Precision top-k"; ties go to the smaller key.
    """
    labels, scores = checked(label, score)
    cards, card = np.unique(group, return_inverse=True)
    day = np.asarray(event_time, dtype=np.int64) // DAY
    found = np.zeros(len(cards), dtype=bool)
    precisions = []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~found[card])
        seen, position = np.unique(card[rows], return_inverse=True)
        worst, guilty = np.full(len(seen), -np.inf), np.zeros(len(seen))
        np.maximum.at(worst, position, scores[rows])
        np.maximum.at(guilty, position, labels[rows])
        first = np.argsort(-worst, kind="stable")[:top]
        caught = seen[first[guilty[first] == 1]]
        found[caught] = True
        precisions.append(len(caught) / top)
    return np.asarray(precisions)
