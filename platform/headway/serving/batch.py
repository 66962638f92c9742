"""What is known of a batch while it is scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headway.core.types import Columns, Int64, Matrix
from headway.serving.work import Call, Model

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
    model: Model | None = None
    """What scored the batch; None: the rules."""
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

    def halves(self) -> Iterator[Batch]:
        """Return the first half of the calls, then the rest, with what is known of their rows."""
        middle = len(self.calls) // 2
        row = sum(call.size for call in self.calls[:middle])
        yield self._part(slice(middle), slice(row))
        yield self._part(slice(middle, None), slice(row, None))

    def _part(self, calls: slice, rows: slice) -> Batch:
        first, last, _ = rows.indices(len(self.at))
        return Batch(
            calls=self.calls[calls],
            columns={name: values[rows] for name, values in self.columns.items()},
            at=self.at[rows],
            now=self.now,
            served=self.served[rows],
            degraded={index - first: list(marks) for index, marks in self.degraded.items() if first <= index < last},
            rejected=None if self.rejected is None else self.rejected[rows],
            recomputed=self.recomputed,
        )
