"""Rows with their expected scores: a replica warms up on them and refuses to serve when an output differs.

Warming alone hides a wrong library or a wrong file; asserting the outputs shows it before the first decision.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from headway.core.errors import Tampered
from headway.core.types import Matrix
from headway.models.backend import Backend

ROWS = 64
TOLERANCE = 2e-6
"""Largest allowed difference of a score, relative where it is above 1; other processors round differently."""


class Warmup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `warmup.json` holds."""

    features: tuple[str, ...]
    """Column names, in the order of the matrix."""
    rows: tuple[tuple[float | None, ...], ...]
    """Feature values; null: missing."""
    expected: tuple[float, ...]
    """The back end's scores when the version was made."""
    tolerance: float = TOLERANCE

    def matrix(self) -> Matrix:
        """Return the rows as float32 [n, k]."""
        rows = [[math.nan if value is None else value for value in row] for row in self.rows]
        return np.asarray(rows, dtype=np.float32).reshape(len(self.rows), len(self.features))

    def check(self, backend: Backend) -> float:
        """Predict in one batch and row by row; return the largest difference; Tampered names the worst row."""
        matrix = self.matrix()
        expected = np.asarray(self.expected, dtype=np.float64)
        single = np.concatenate([backend.predict(matrix[index : index + 1]) for index in range(len(matrix))])
        worst = 0.0
        for scores in (backend.predict(matrix), single):
            if scores.shape != expected.shape:
                raise Tampered(f"{backend.name} returned shape {scores.shape}, expected {expected.shape}")
            difference = np.abs(scores.astype(np.float64) - expected) / np.maximum(1, np.abs(expected))
            if not np.all(difference <= self.tolerance):  # also when a score is NaN
                row = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
                raise Tampered(
                    f"warm-up row {row}: {backend.name} scores {scores[row]!r}, expected {expected[row]!r}",
                    hint="the model file or the library differs from what was signed; redeploy a verified version",
                )
            worst = max(worst, float(difference.max(initial=0.0)))
        return worst


def make_warmup(features: tuple[str, ...], sample: Matrix, backend: Backend) -> Warmup:
    """Return up to 64 rows spread evenly over `sample`, one all-missing row, and the back end's scores for them."""
    step = np.linspace(0, len(sample) - 1, num=min(ROWS - 1, len(sample))).astype(np.int64)
    missing = np.full((1, sample.shape[1]), np.nan, dtype=np.float32)
    matrix = np.concatenate([sample[step], missing])
    return Warmup(
        features=features,
        rows=tuple(tuple(None if math.isnan(value) else value for value in row) for row in matrix.tolist()),
        expected=tuple(backend.predict(matrix).tolist()),
    )
