"""The progress port: long work names its stages; the console draws them, tests and jobs collect them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from headway.core.clock import Clock, SystemClock


class Stage(Protocol):
    """One running stage."""

    def advance(self, done: int, total: int | None = None) -> None:
        """Report `done` of `total` units."""
        ...

    def note(self, text: str) -> None:
        """Say what came out, in a few words."""
        ...


class Progress(Protocol):
    """Where stages are reported."""

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """Open a stage; leaving the context ends it, by exception too."""
        ...


@dataclass
class StageRecord:
    """What a finished stage was; `seconds` is monotonic time."""

    name: str
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def advance(self, done: int, total: int | None = None) -> None:
        """Nothing to draw."""

    def note(self, text: str) -> None:
        """Keep the text."""
        self.notes.append(text)


class RecordedProgress:
    """Collects stages and their seconds; the in-memory driver of the port."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.stages: list[StageRecord] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[StageRecord]:
        """Record a stage."""
        record = StageRecord(name)
        self.stages.append(record)
        start = self._clock.monotonic()
        try:
            yield record
        finally:
            record.seconds = self._clock.monotonic() - start
