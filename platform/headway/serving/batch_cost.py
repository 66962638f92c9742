"""What a batch of n rows takes: t ≈ a + b·n, least squares over a moving window (BentoML's model of a batch)."""

from __future__ import annotations

_WEIGHT = 0.05
_LEAST_VARIANCE = 0.5
"""Of the rows: below it there is no line to fit, and the slope stays what it was."""
_FIRST_SLOPE = 0.1
"""Of what a row costs in the batches seen, as long as all had the same size. Too little would let the first moment of a
flood pass, too much refuse large calls that fit."""


class BatchCost:
    """Fitted online; asking costs a multiplication."""

    def __init__(self) -> None:
        self._n = self._t = self._nn = self._nt = 0.0
        self._seen = 0
        self._fitted = False
        self.fixed = 0.0
        """Seconds of any batch, a."""
        self.slope = 0.0
        """Seconds per row, b."""

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one batch."""
        self._seen += 1
        weight = max(_WEIGHT, 1.0 / self._seen)
        self._n += weight * (rows - self._n)
        self._t += weight * (seconds - self._t)
        self._nn += weight * (rows * rows - self._nn)
        self._nt += weight * (rows * seconds - self._nt)
        variance = self._nn - self._n * self._n
        whole = self._t / self._n if self._n else 0.0
        if variance > _LEAST_VARIANCE:
            self._fitted = True
            self.slope = max(0.0, (self._nt - self._n * self._t) / variance)
        elif not self._fitted:
            self.slope = _FIRST_SLOPE * whole
        self.slope = min(self.slope, whole)
        self.fixed = max(0.0, self._t - self.slope * self._n)

    def seconds(self, rows: int, batches: int) -> float:
        """Estimate `batches` batches that hold `rows` rows together."""
        return batches * self.fixed + rows * self.slope
