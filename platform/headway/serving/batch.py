"""What is known of a batch while it is scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headway.core.types import Columns, Int64, Matrix
from headway.serving.work import Call

NO_MODEL = "none"


@dataclass(slots=True)
class Batch:
    """Rows of several calls, and what their answers rest on."""

    calls: Sequence[Call]
    columns: Columns
    at: Int64
    now: int
    served: Matrix = field(default_factory=lambda: np.empty((0, 0), np.float32))
    degraded: dict[int, list[str]] = field(default_factory=dict)
    """Row → marks; rows without any are not there."""
    rejected: npt.NDArray[np.bool_] | None = None
    arms: list[str] = field(default_factory=list)
    version: str = NO_MODEL
    recomputed: set[str] = field(default_factory=set)
    """Views whose stale rows come from the lake."""

    def mark(self, index: int, mark: str) -> None:
        """Say that a row's answer rests on less than it should."""
        self.degraded.setdefault(index, []).append(mark)

    def mark_all(self, marks: Iterable[str]) -> None:
        """Say so of every row."""
        for mark in marks:
            for index in range(len(self.at)):
                self.mark(index, mark)

    def fresh(self, watermark: int, max_lag: int) -> bool:
        """Whether even the latest row is within the bound: the common case, decided by one number."""
        return int(self.at.max()) - watermark <= max_lag
