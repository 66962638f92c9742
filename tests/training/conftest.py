"""Data that the training tests share."""

from __future__ import annotations

import numpy as np
import pytest

from headway.core.types import Matrix


@pytest.fixture(scope="session")
def learnable() -> tuple[Matrix, Matrix]:
    """Return 20,000 rows × 6 features with 10 % missing values, and labels that they explain in part."""
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(20_000, 6)).astype(np.float32)
    signal = matrix[:, 0] + matrix[:, 1] * matrix[:, 2]
    label = (signal + generator.normal(size=len(matrix)) > 1.5).astype(np.float32)
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    return matrix, label
