"""A use case's recorded or simulated past, and the part of it that is replayed as live traffic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from headway.core.errors import NotFound
from headway.core.project import Project
from headway.features.definitions import EventSource


@dataclass(frozen=True, kw_only=True)
class History:
    """Where a use case's events come from when no stream is attached."""

    use_case: str
    sources: tuple[EventSource, ...]
    load: Callable[[int], Mapping[str, pa.Table]]
    """Seed → one Arrow table per source name, sorted by event_time; both times are int64 microseconds."""
    live_from: str
    """RFC 3339: earlier events are history, later ones are replayed as live."""
    live_until: str
    requests: EventSource
    """The source whose rows are decisions: keys and request columns at event_time."""
    outcomes: EventSource
    """The source with the labels of those decisions, by the same id."""
    label: str
    drift_from: str = ""
    """RFC 3339: from here on `drifted` differs from `load`; the core demo story ends here."""
    drifted: Callable[[int], Mapping[str, pa.Table]] | None = None
    """The same history with a changed world from some day of the live range on, for the drift story."""
    simulated: bool = False
    origin: str = ""
    """Where the data come from, and their licence."""


def history_of(project: Project, use_case: str) -> History:
    """Return the history of a use case; NotFound where there is no such use case, or no history of it."""
    for history in project.collect("features", History):
        if history.use_case == project.require(use_case):
            return history
    raise NotFound("history of use case", use_case)
