"""The reference side of every comparison: the signed profile's counts and where each feature's bins lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headway.core.errors import CorruptState
from headway.core.routing import VersionRef
from headway.core.types import Int64

SCORE = "score"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bins:
    """One feature's part of the flat counts: ordered value bins in [start, stop), nulls in bin `null`."""

    name: str
    start: int
    stop: int
    null: int


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the champion saw when it was evaluated, as counts."""

    version: str
    profile_sha256: str
    bins: tuple[Bins, ...]
    """Features in profile order, then `score`."""
    counts: Int64
    """Flat, in the layout of `core.counts.CountsDelta.counts`."""

    def __post_init__(self) -> None:
        """Refuse bins that do not tile the flat counts, so that no count is read twice or never."""
        places = sorted(index for bins in self.bins for index in (*range(bins.start, bins.stop), bins.null))
        if places != list(range(self.counts.size)):
            raise CorruptState(
                f"the profile's bins of version {self.version} do not tile its {self.counts.size} counts"
            )

    def rows(self, counts: Int64) -> Int64:
        """Return how many rows each feature counted; the same for all in sound counts."""
        return np.array(
            [counts[bins.start : bins.stop].sum() + counts[bins.null] for bins in self.bins], dtype=np.int64
        )


ReferenceSource = Callable[[VersionRef], Reference]
"""Loads the reference of a routed version; verifies its files first and raises Tampered where they do not hold."""
