"""An event loop whose time passes only when nothing is left to do: overload takes moments and repeats exactly."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Skipping(selectors.DefaultSelector):
    """Waits for nobody: what it is asked to wait is added to the time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its own clock, too."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now

    def monotonic(self) -> float:
        return self._skipping.now

    def now(self) -> int:
        return int(self._skipping.now * 1e6)


def run_virtual(work: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run to the end on a loop of its own."""
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()
