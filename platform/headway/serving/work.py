"""What passes between gateway, batcher, scorer and recorder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from headway.core.types import Columns, Int64, Matrix
from headway.serving.protocol import Decision
from headway.serving.schema import Row

if TYPE_CHECKING:
    from headway.serving.tracing import RequestTrace


@dataclass(slots=True)
class Call:
    """One admitted request for decisions."""

    rows: list[Row]
    sub: str
    """Who asks."""
    request_id: str
    deadline: float
    """Monotonic seconds."""
    as_of: int | None = None
    """Decision time of all rows, UTC microseconds; None: now, or the row's own event_time."""
    replayed: bool = False
    """Some time was chosen by the caller."""
    rules_only: bool = False
    """Admitted above the ceiling: the rules answer."""
    arrived: float = 0.0
    """Monotonic seconds, when it was queued."""
    trace: RequestTrace | None = None
    """Where it is traced."""
    explain: bool = False
    """The answer shall hold what its reasons are found from."""

    @property
    def size(self) -> int:
        """Rows."""
        return len(self.rows)


@dataclass(slots=True)
class Answer:
    """The decisions of one call."""

    model_version: str
    decisions: list[Decision]
    model: Model | None = None
    """What decided, where reasons are wanted and a model did."""
    served: Matrix | None = None
    """Its input, the rows that are recorded, where reasons are wanted."""


@dataclass(slots=True)
class Recorded:
    """One scored batch as the decision log keeps it: arrays, nothing copied on the hot path."""

    columns: Columns
    """Entity keys and request columns."""
    at: Int64
    """Decision times, UTC microseconds."""
    now: int
    """When it was decided, UTC microseconds: the log's known_time."""
    features: Matrix
    """Model input as served, float32 [n, k]."""
    scores: npt.NDArray[np.float32]
    decisions: list[Decision]
    model_version: str
    calls: list[tuple[str, str, int]]
    """(sub, request id, rows) in row order."""
    event_ids: list[int | str | None] | None = None
    """The clients' own ids; None: the use case has none."""


class Model(Protocol):
    """A loaded version, as the scorer sees it."""

    @property
    def version(self) -> str:
        """Registered version."""
        ...

    def predict(self, matrix: Matrix) -> Matrix:
        """Return one float32 score per row."""
        ...

    def count(self, matrix: Matrix, scores: Matrix, at: Int64) -> None:
        """Add served rows to the exact counts that the monitor reads."""
        ...


class Recorder(Protocol):
    """Where decisions are logged; never waits."""

    def add(self, batch: Recorded) -> None:
        """Take a batch."""
        ...
