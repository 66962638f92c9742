"""The port of everything that predicts: the fastest engine depends on the model and is chosen by measurement."""

from __future__ import annotations

from typing import Protocol

from headway.core.types import Matrix


class Backend(Protocol):
    """A loaded model."""

    name: str
    """xgboost | onnx."""

    def predict(self, matrix: Matrix) -> Matrix:
        """Return one score per row, float32 [n], for float32 [n, k]; a missing value is NaN."""
        ...
