"""Measures of predicted numbers and of several classes, on weighted rows, from their definitions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.training.metrics import Float64

Codes = npt.NDArray[np.int64]
_CLIP = 1e-7


def checked_numbers(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Return both as float64 [n]; InvalidValue for no rows, other shapes, NaN or infinity."""
    labels, scores = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1 or len(labels) == 0:
        raise InvalidValue("score", f"shape {scores.shape}, labels {labels.shape}")
    for name, values in (("label", labels), ("score", scores)):
        if not np.isfinite(values).all():
            raise InvalidValue(name, "holds NaN or infinity")
    return labels, scores


def rmse(label: Float64, score: Float64, weight: Float64 | None = None) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.average(np.square(score - label), weights=weight)))


def mae(label: Float64, score: Float64, weight: Float64 | None = None) -> float:
    """Mean absolute error."""
    return float(np.average(np.abs(score - label), weights=weight))


def r2(label: Float64, score: Float64, weight: Float64 | None = None) -> float:
    """Share of the labels' variance that is explained; NaN for labels that are all equal."""
    counted = label if weight is None else label[weight > 0]
    if (counted == counted[0]).all():  # their mean may differ from them by rounding
        return float("nan")
    around = np.average(np.square(label - np.average(label, weights=weight)), weights=weight)
    return float(1 - np.average(np.square(score - label), weights=weight) / around)


def checked_classes(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Codes, Float64]:
    """Return codes int64 [n] and probabilities float64 [n, k]; InvalidValue where they are none."""
    labels, scores = np.asarray(label), np.asarray(score, dtype=np.float64)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise InvalidValue("score", f"shape {scores.shape}, labels {labels.shape}; expected [n, classes] and [n]")
    codes = labels.astype(np.int64)
    if (codes != labels).any() or codes.min() < 0 or codes.max() >= scores.shape[1]:
        raise InvalidValue("label", f"holds other values than the codes 0 to {scores.shape[1] - 1}")
    if not (np.isfinite(scores) & (scores >= 0)).all() or np.abs(scores.sum(axis=1) - 1).max() > 1e-3:
        raise InvalidValue("score", "holds rows that are no probabilities of the classes")
    return codes, scores


def confusion(label: Codes, predicted: Codes, classes: int, weight: Float64 | None = None) -> Float64:
    """Return the weight of rows by (label, predicted); float64 [classes, classes]."""
    return np.bincount(label * classes + predicted, weight, classes**2).reshape(classes, classes).astype(np.float64)


def accuracy(table: Float64) -> float:
    """Share of rows that are told right."""
    return float(np.trace(table) / table.sum())


def macro_f1(table: Float64) -> float:
    """Mean over classes of the harmonic mean of precision and recall; a class neither there nor told is left out."""
    size = table.sum(axis=0) + table.sum(axis=1)
    there = size > 0
    return float(np.mean(2 * np.diag(table)[there] / size[there]))


def log_loss(label: Codes, score: Float64, weight: Float64 | None = None) -> float:
    """Mean negative log-likelihood (nats), probabilities kept 1e-7 from 0 and 1."""
    told = np.clip(score[np.arange(len(label)), label], _CLIP, 1 - _CLIP)
    return float(np.average(-np.log(told), weights=weight))
