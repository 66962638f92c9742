"""Areas under ROC curves with DeLong's variance, and the difference of two areas on the same rows.

DeLong, DeLong, Clarke-Pearson (Biometrics 1988): the area is a mean over pairs, so its variance is that of each row's
own share. Sun and Xu (IEEE Signal Processing Letters 2014): the shares are differences of midranks, hence a sort and
not n². Rows are taken as independent; where they are not, the block bootstrap is the honest one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headway.training.metrics import Float64, checked


@dataclass(frozen=True, kw_only=True)
class Areas:
    """Areas of several scores of the same rows."""

    value: Float64
    """[s]."""
    covariance: Float64
    """[s, s]."""


def midranks(values: Float64) -> Float64:
    """Return ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Float64 = ((2 * last - counts + 1) / 2)[inverse]
    return ranks


def areas(label: npt.ArrayLike, *scores: npt.ArrayLike) -> Areas:
    """Return the area of each score and their covariance; InvalidValue for labels of one class or NaN scores."""
    values, ones, zeros = [], [], []
    for score in scores:
        labels, ranked = checked(label, score)
        positive, negative = ranked[labels == 1], ranked[labels == 0]
        everywhere = midranks(np.concatenate([positive, negative]))
        share = (everywhere[: len(positive)] - midranks(positive)) / len(negative)
        values.append(float(share.mean()))
        ones.append(share)
        zeros.append(1 - (everywhere[len(positive) :] - midranks(negative)) / len(positive))
    covariance = sum(np.atleast_2d(np.cov(part)) / part.shape[1] for part in (np.array(ones), np.array(zeros))
                     if part.shape[1] > 1)  # fmt: skip
    return Areas(value=np.array(values), covariance=np.zeros((len(scores),) * 2) + covariance)


def area_interval(label: npt.ArrayLike, score: npt.ArrayLike, *, tail: float) -> tuple[float, float, float]:
    """Return (area, low, high) with `tail` beyond each end; on the logit scale, so that it stays within 0 and 1."""
    from scipy.special import ndtri

    found = areas(label, score)
    value, spread = float(found.value[0]), float(np.sqrt(max(found.covariance[0, 0], 0.0)))
    if spread == 0 or not 0 < value < 1:
        return value, value, value
    centre, reach = np.log(value / (1 - value)), -ndtri(tail) * spread / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-reach, reach]))))
    return value, float(low), float(high)


def area_difference(
    label: npt.ArrayLike, score: npt.ArrayLike, other: npt.ArrayLike, *, tail: float
) -> tuple[float, float, float]:
    """Return (difference, low, high) of `score`'s area over `other`'s, with `tail` beyond each end."""
    from scipy.special import ndtri

    found = areas(label, score, other)
    contrast = np.array([1.0, -1.0])
    value = float(contrast @ found.value)
    reach = float(-ndtri(tail) * np.sqrt(max(contrast @ found.covariance @ contrast, 0.0)))
    return value, value - reach, value + reach
