"""The last step of the ladder: plain rules of the team that need neither model nor feature store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headway.core.types import Columns

RULES_ARM = "rules"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """A vectorised rule of thumb; `serve_apps/<use case>/rules.py` holds exactly one."""

    use_case: str
    score: Callable[[Columns], npt.NDArray[np.floating]]
    """Entity keys, request columns and `event_time` (decision time, microseconds) → one score in [0, 1] per row."""
    description: str = ""
    """What the rule does, in words that a risk owner signs."""
    tested_by: str = field(default="", compare=False)
    """Where its threshold comes from."""

    def apply(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return finite float32 scores in [0, 1]; ValueError if the rule breaks its promise."""
        scores = np.asarray(self.score(columns), dtype=np.float32)
        if len(columns) and scores.shape != next(iter(columns.values())).shape:
            raise ValueError(f"the rules of {self.use_case} returned shape {scores.shape}")
        if not np.isfinite(scores).all():
            raise ValueError(f"the rules of {self.use_case} returned a score that is not a number")
        return np.clip(scores, 0.0, 1.0)
