"""XGBoost itself, one thread: the reference that other back ends are compared with, and the engine of large batches."""

from __future__ import annotations

import numpy as np

from headway.core.types import Matrix


class XGBoostBackend:
    """A booster read from its JSON form; JSON, because a short UBJSON file can crash the parser."""

    name = "xgboost"

    def __init__(self, model: bytes) -> None:
        import xgboost

        self._booster = xgboost.Booster(params={"nthread": 1}, model_file=bytearray(model))

    def predict(self, matrix: Matrix) -> Matrix:
        """Return the score of every row."""
        scores = self._booster.inplace_predict(matrix, validate_features=False)
        return np.asarray(scores, dtype=np.float32).reshape(len(matrix))
