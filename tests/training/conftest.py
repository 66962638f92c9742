"""Data that the training tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

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


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start a small Ray of this test run's own."""
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 * 2**20, _temp_dir="/tmp/rtr")
    yield
    ray.shutdown()
