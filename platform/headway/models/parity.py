"""Which back end a version is served with: equal outputs are required, then measured speed decides.

Speed is measured at one row and at 64, because a live service sees both: the smaller sum of medians wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headway.core.clock import Clock
from headway.core.types import Matrix
from headway.models.backend import Backend

TOLERANCE = 1e-6
"""Largest difference of a score from the reference's, relative where the score is above 1, as of a regression."""
BATCHES = (1, 64)
_REPEATS = 100


@dataclass(frozen=True, kw_only=True)
class BackendReport:
    """What was measured of one back end."""

    name: str
    difference: float
    """Largest difference from the reference over the sample: |a − b| / max(1, |b|)."""
    microseconds: Mapping[int, float]
    """Median time of a call by rows."""

    @property
    def equal(self) -> bool:
        """Whether the outputs are close enough to serve."""
        return self.difference <= TOLERANCE

    @property
    def cost(self) -> float:
        """Sum of the medians; smaller is faster."""
        return sum(self.microseconds.values())


def compare(reference: Backend, others: tuple[Backend, ...], sample: Matrix, clock: Clock) -> tuple[BackendReport, ...]:
    """Measure the reference and the others on `sample`, to which an all-missing row is added; fastest equal one first.

    The reference is always equal to itself, so the first report is always a valid choice.
    """
    missing = np.full((1, sample.shape[1]), np.nan, dtype=np.float32)
    rows = np.concatenate([sample, missing])
    expected = reference.predict(rows).astype(np.float64)
    reports = []
    for backend in (reference, *others):
        difference = np.abs(backend.predict(rows).astype(np.float64) - expected) / np.maximum(1, np.abs(expected))
        worst = float(np.where(np.isnan(difference), np.inf, difference).max())
        medians = {size: _median(backend, np.resize(rows, (size, rows.shape[1])), clock) for size in BATCHES}
        reports.append(BackendReport(name=backend.name, difference=worst, microseconds=medians))
    return tuple(sorted(reports, key=lambda report: (not report.equal, report.cost)))


def _median(backend: Backend, batch: Matrix, clock: Clock) -> float:
    seconds = []
    for _ in range(_REPEATS):
        start = clock.monotonic()
        backend.predict(batch)
        seconds.append(clock.monotonic() - start)
    return float(np.median(seconds[_REPEATS // 5 :])) * 1e6
