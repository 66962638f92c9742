"""The Clock port: code asks it for the time, so that replayed histories and tests control time without patches."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time for the world, monotonic time for durations."""

    def now(self) -> int:
        """Return UTC microseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Return UTC microseconds since the epoch."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told, for replays and tests."""

    def __init__(self, now: int = 0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> int:
        """Return the time last set."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds advanced since the start."""
        return self._monotonic

    def advance(self, microseconds: int) -> None:
        """Move both clocks forward by `microseconds` (≥ 0)."""
        if microseconds < 0:
            raise ValueError("a clock does not go back")
        self._now += microseconds
        self._monotonic += microseconds / 1e6
