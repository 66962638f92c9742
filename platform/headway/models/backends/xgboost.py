"""XGBoost itself, one thread: the reference that other back ends are compared with, and the engine of large batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headway.core.types import Matrix
from headway.models.calibration import ATTRIBUTE, Calibration, decode

if TYPE_CHECKING:
    import xgboost


class XGBoostBackend:
    """A booster read from its JSON form; JSON, because a short UBJSON file can crash the parser."""

    name = "xgboost"

    def __init__(self, model: bytes) -> None:
        import xgboost

        self._booster = xgboost.Booster(params={"nthread": 1}, model_file=bytearray(model))
        self._calibration = decode(self._booster.attr(ATTRIBUTE))

    def predict(self, matrix: Matrix) -> Matrix:
        """Return the score of every row."""
        return scores(self._booster, self._calibration, matrix)


def scores(booster: xgboost.Booster, calibration: Calibration | None, matrix: Matrix) -> Matrix:
    """Return float32 [n] of float32 [n, k]: calibrated where there is a calibration."""
    kind = "value" if calibration is None else "margin"
    found = booster.inplace_predict(matrix, validate_features=False, predict_type=kind)
    flat = np.asarray(found, dtype=np.float32).reshape(len(matrix))
    return flat if calibration is None else calibration(flat)
