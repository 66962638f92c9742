"""The evaluation rows as gates see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from headway.core.types import Int64
from headway.training.measuring import Task


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Labels, the candidate's scores, and what else is known of each row."""

    label: npt.NDArray[Any]
    """[n]."""
    score: npt.NDArray[Any]
    """[n], or [n, classes]."""
    event_time: Int64
    task: Task = "binary"
    group: npt.NDArray[Any] | None = None
    """Keys for card precision [n]."""
    blocks: npt.NDArray[Any] | None = None
    """Rows of one block depend on one another [n]."""
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Of segments and protected groups."""
    seed: int = 0

    def part(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """Return some of the rows, without their columns."""
        return Rows(
            label=self.label[rows],
            score=self.score[rows],
            event_time=self.event_time[rows],
            task=self.task,
            group=None if self.group is None else self.group[rows],
            blocks=None if self.blocks is None else self.blocks[rows],
            seed=self.seed,
        )
