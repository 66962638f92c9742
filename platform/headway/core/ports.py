"""Ports between rooms of one floor: what the monitoring loop asks of training, registry and serving.

`monitoring` imports none of them; the composition root hands it callables. Each act names its episode, so that an act
repeated after a crash is the same act: implementations return the first result for a repeated episode.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from headway.core.routing import VersionRef


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One retraining, asked for by the loop."""

    use_case: str
    episode: str
    """Identity of the act: name the run by it, and a repeated request resumes that run."""
    alarm: str
    """Hash of the alarm that asked for it: a reference for the evidence."""
    as_of: int
    """Decision time at which the alarm was raised, UTC microseconds: labels known by then may be used."""
    replaces: str
    """Version whose counts raised the alarm."""
    reason: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A trained, signed and registered version that has passed its gates."""

    version: VersionRef
    gates: tuple[str, ...] = ()
    """One line per gate: metric, value, floor."""
    refs: tuple[str, ...] = ()
    """Hashes of the evidence: statement, snapshots."""


class Retrain(Protocol):
    """Trains on the newest snapshot and applies the gates."""

    def __call__(self, request: RetrainRequest) -> Candidate:
        """Return the candidate; raise GateFailed where it is below a floor, with the run recorded."""
        ...


class Promote(Protocol):
    """Makes a candidate the champion in the routing record, and lets the registry's alias follow."""

    def __call__(self, use_case: str, candidate: Candidate, *, episode: str, reason: str) -> int:
        """Return the routing generation in which it serves; repeating it changes nothing."""
        ...


class Redeploy(Protocol):
    """Moves the champion into the replicas by a rolling update."""

    def __call__(self, use_case: str, generation: int, *, episode: str) -> None:
        """Return when every replica serves at least that generation; repeating it is harmless."""
        ...


class NewLabels(Protocol):
    """Counts the labels that training has not yet seen."""

    def __call__(self, use_case: str, version: str, as_of: int) -> int:
        """Return how many labels became known after `version` was trained and by `as_of`."""
        ...
