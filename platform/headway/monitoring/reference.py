"""The reference side of every comparison: the signed profile's counts and where each feature's bins lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headway.core.clock import Clock
from headway.core.errors import CorruptState
from headway.core.routing import VersionRef
from headway.core.types import Int64
from headway.features.profile import Profile
from headway.governance.signing import TrustRoot
from headway.governance.statement import read_file, verify_version
from headway.models.artefact import PROFILE_FILE


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


def reference_of(profile: Profile, *, version: str, profile_sha256: str) -> Reference:
    """Return the reference of a profile: per column k + 1 value bins, then the bin of missing values."""
    bins: list[Bins] = []
    start = 0
    for column in profile.columns:
        null = start + len(column.counts) - 1
        bins.append(Bins(name=column.name, start=start, stop=null, null=null))
        start = null + 1
    return Reference(version=version, profile_sha256=profile_sha256, bins=tuple(bins), counts=profile.flat())


class VerifiedReferences:
    """Reads references from the artefacts that the routing record names, after verifying every byte of them."""

    def __init__(self, use_case: str, trust: TrustRoot, clock: Clock) -> None:
        self._use_case = use_case
        self._trust = trust
        self._clock = clock

    def __call__(self, champion: VersionRef) -> Reference:
        """Return the champion's reference; EvidenceError where the artefact does not hold."""
        folder = Path(champion.path)
        statement = verify_version(
            folder,
            self._trust,
            name=self._use_case,
            version=champion.version,
            clock=self._clock,
            statement_sha256=champion.statement_sha256,
        )
        profile = Profile.from_json(read_file(folder, statement, PROFILE_FILE))
        return reference_of(profile, version=champion.version, profile_sha256=statement.reference_profile_sha256)
