"""Evaluation rows that the tests of gates share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headway.core.times import DAY
from headway.training.gates.rows import Rows

Real = npt.NDArray[np.float64]


def ranked(seed: int, n: int = 4_000, *, strength: float = 1.5) -> tuple[Real, Real]:
    """Return 0/1 labels, 20 % of them 1, and calibrated probabilities; `strength`: how much is known."""
    generator = np.random.default_rng(seed)
    known = generator.normal(-1.8, strength, n)
    probability = 1 / (1 + np.exp(-known))
    return (generator.random(n) < probability).astype(np.float64), probability


def noisy(score: Real, seed: int, spread: float) -> Real:
    """Return the score with noise on the logit scale: a worse model."""
    logit = np.log(score / (1 - score)) + np.random.default_rng(seed).normal(0, spread, len(score))
    return np.asarray(1 / (1 + np.exp(-logit)))


def rows(label: Real, score: Real, **more: Any) -> Rows:
    """Return rows over a week."""
    at = np.sort(np.random.default_rng(0).integers(0, 7 * DAY, len(label)))
    return Rows(label=label, score=score, event_time=at, **more)
