"""What every recipe ends with: a model that predicts, and its files for the back ends that may serve it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headway.core.types import Matrix


class Fitted(Protocol):
    """A finished training of any kind."""

    def predict(self, matrix: Matrix) -> Matrix:
        """Return the reference scores, float32 [n], of float32 [n, k]; back ends are held against them."""
        ...

    def models(self) -> Mapping[str, bytes]:
        """Return back end → the model file that it reads; the first is the reference."""
        ...

    def summary(self) -> str:
        """Return a line for whoever watches."""
        ...
