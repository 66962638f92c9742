"""A circuit breaker: after three failures in a row a dependency is left alone for a second: nothing hangs on it."""

from __future__ import annotations

from headway.core.clock import Clock


class Breaker:
    """Closed, open, or half-open: one trial after the pause."""

    def __init__(self, clock: Clock, *, failures: int = 3, pause_s: float = 1.0) -> None:
        self._clock = clock
        self._limit = failures
        self._pause_s = pause_s
        self._failures = 0
        self._open_until = 0.0

    @property
    def allows(self) -> bool:
        """Whether a call may be tried now."""
        return self._failures < self._limit or self._clock.monotonic() >= self._open_until

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0

    def failed(self) -> None:
        """Count a failure; open at the limit, and again after a failed trial."""
        self._failures += 1
        if self._failures >= self._limit:
            self._open_until = self._clock.monotonic() + self._pause_s
