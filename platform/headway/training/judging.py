"""What a data scientist declares about judging a candidate: bounds, segments, sources of labels, protected groups."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt

from headway.core.errors import DefinitionError

Refresh = Literal["superior", "not_inferior"]
DAYS = "day"
"""Rows of one UTC day are resampled together."""
VERDICTS = ("consistency", "quality")
MAX_PARTS = 20
"""Values of a column without bins that may be segments of their own."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A metric that a candidate is held to: by a bound, and against the champion."""

    metric: str
    """roc_auc | average_precision | brier | log_loss | card_precision_at_100; of numbers rmse | mae | r2; of several
    classes macro_f1 | accuracy | log_loss."""
    floor: float | None = None
    """Smallest allowed value."""
    ceiling: float | None = None
    """Largest allowed value, for losses."""
    margin: float = 0.01
    """How much worse than the champion the confident bound may be; the primary's only where `refresh` allows it."""
    primary: bool = False
    """Whether a candidate must be confidently better here; the first gate, where none says so."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A column whose parts are judged one by one."""

    column: str
    """Of the spine or a feature."""
    bins: tuple[float, ...] = ()
    """Ascending edges: parts are below the first, [edge, next edge), from the last on. None: each value is a part."""
    minimum: int = 500
    """Rows; smaller parts are listed, and not judged."""
    margin: float = 0.05
    """How much worse than the champion the primary metric's confident bound may be in any part."""

    def __post_init__(self) -> None:
        """Refuse edges that do not ascend."""
        if any(after <= before for before, after in pairwise(self.bins)):
            raise DefinitionError(f"{list(self.bins)}", field=f"segments.{self.column}.bins", expected="ascending")

    def parts(self, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.bool_]]:
        """Return name → rows of each part that has any; DefinitionError for a column of too many values."""
        if not self.bins:
            names, code = np.unique(values, return_inverse=True)
            if len(names) > MAX_PARTS:
                raise DefinitionError(
                    f"{self.column!r} has {len(names)} values", field=f"segments.{self.column}",
                    expected=f"`bins`, or a column of at most {MAX_PARTS} values",
                )  # fmt: skip
            return {f"{self.column}={name}": code == index for index, name in enumerate(names)}
        edges = (-np.inf, *self.bins, np.inf)
        numbers = np.asarray(values, dtype=np.float64)
        found = {f"{self.column}={_span(low, high)}": (numbers >= low) & (numbers < high)
                 for low, high in pairwise(edges)}  # fmt: skip
        found[f"{self.column} missing"] = np.isnan(numbers)
        return {name: rows for name, rows in found.items() if rows.any()}


@dataclass(frozen=True, kw_only=True)
class Protected(Segment):
    """A column whose parts must be treated alike."""

    true_positive_rate: float | None = None
    """Largest difference between any part and all other rows, as the confident bound."""
    selection_rate: float | None = None
    """The same of the share of rows at or above the contract's threshold."""


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Where labels come from, so that one that was tampered with is found."""

    column: str
    """Of the spine: who annotated, which terminal, which customer."""
    buckets: int | None = None
    """Values are judged in this many groups, by hash; None: each by itself."""
    cluster: str | None = None
    """Column of the spine whose rows depend on one another; with buckets the column itself, unless given."""

    def names(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return each row's source."""
        if self.buckets is None:
            return values
        distinct, code = np.unique(values, return_inverse=True)
        bucket = np.array([crc32(str(value).encode()) % self.buckets for value in distinct])
        groups = np.array([f"{self.column} group {group}" for group in range(self.buckets)])
        found: npt.NDArray[Any] = groups[bucket[code]]
        return found

    @property
    def ties(self) -> str | None:
        """Column whose rows depend on one another."""
        return self.cluster or (self.column if self.buckets is not None else None)


def check_declared(gates: tuple[Gate, ...], verdicts: tuple[str, ...]) -> None:
    """Raise DefinitionError for two primaries, a margin below 0, or a verdict that nobody can bring."""
    primaries = [gate.metric for gate in gates if gate.primary]
    if len(primaries) > 1:
        raise DefinitionError(f"{', '.join(primaries)}", field="job.gates", expected="one primary metric")
    for gate in gates:
        if not gate.margin >= 0:
            raise DefinitionError(f"{gate.metric}: margin {gate.margin}", field="job.gates", expected="0 or more")
    unknown = sorted(set(verdicts) - set(VERDICTS))
    if unknown:
        raise DefinitionError(", ".join(unknown), field="job.verdicts", expected=" | ".join(VERDICTS))


def _span(low: float, high: float) -> str:
    return f"below {high:g}" if low == -np.inf else f"from {low:g}" if high == np.inf else f"{low:g} to {high:g}"
