"""A circuit breaker: a dependency that fails again and again is left alone for a pause, so that nothing hangs on it.

After the pause it is half-open: exactly one call at a time may try. Its success closes the breaker, its failure opens
it for another pause. A trial that reports nothing within the pause counts as lost, so that a cancelled caller cannot
keep the breaker half-open for ever.
"""

from __future__ import annotations

from enum import IntEnum

from headway.core.clock import Clock


class State(IntEnum):
    """As metrics show it."""

    CLOSED = 0
    """Calls pass."""
    HALF_OPEN = 1
    """One call tries, the others do without."""
    OPEN = 2
    """Nobody calls."""


class Breaker:
    """One dependency of one event loop; who gets True from `acquire` reports `succeeded` or `failed`."""

    def __init__(self, clock: Clock, *, name: str, failures: int = 3, pause_s: float = 1.0) -> None:
        self.name = name
        """Label in metrics and readiness."""
        self.opened = 0
        """How often it opened."""
        self._clock = clock
        self._limit = failures
        self._pause_s = pause_s
        self._failures = 0
        self._state = State.CLOSED
        self._until = 0.0
        """Monotonic seconds: end of the pause, or of the trial."""

    @property
    def state(self) -> State:
        """Closed, half-open or open; a pause that is over counts as open until somebody tries."""
        return self._state

    def acquire(self) -> bool:
        """Whether the caller may try; half-open, True for one caller at a time."""
        if self._state is State.CLOSED:
            return True
        now = self._clock.monotonic()
        if now < self._until:
            return False
        self._until = now + self._pause_s
        self._state = State.HALF_OPEN
        return True

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0
        self._state = State.CLOSED

    def failed(self) -> None:
        """Count a failure; open at the limit, and again after a failed trial."""
        self._failures += 1
        if self._state is State.CLOSED and self._failures < self._limit:
            return
        self._until = self._clock.monotonic() + self._pause_s
        if self._state is not State.OPEN:
            self.opened += 1
            self._state = State.OPEN
