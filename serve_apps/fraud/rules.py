"""Fallback for card transactions: large amounts are suspicious, nothing else is known without features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headway.core.types import Columns
from headway.serving.fallback import Rules

LARGE = 220.0


def score(columns: Columns) -> npt.NDArray[np.float32]:
    """Half at 220, one from 440 on: at the threshold 0.5 it blocks what exceeds 220."""
    share: npt.NDArray[np.float32] = columns["amount"].astype(np.float32) / np.float32(2 * LARGE)
    return np.clip(share, 0.0, 1.0)


rules = Rules(
    use_case="fraud",
    score=score,
    description="Block amounts above 220; rank the others by amount.",
    tested_by="scenario 1 of the Fraud Detection Handbook; finds the frauds of one scenario of three",
)
