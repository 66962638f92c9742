"""Recomputes stale features beside the event loop: one read at a time, given up at the deadline, then left alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from headway.core.clock import Clock
from headway.core.types import Columns, Int64
from headway.features.online import OnlineRows
from headway.serving.breaker import Breaker

_LOG = logging.getLogger(__name__)
_PAUSE_S = 5.0


class Lake(Protocol):
    """Features from the lake (`headway.features.recompute.LakeFeatures`)."""

    def read(self, views: Sequence[str], keys: Columns, at: Int64) -> OnlineRows:
        """Return the views' features; blocking."""
        ...


class Recomputer:
    """Use it from one event loop."""

    def __init__(self, lake: Lake, clock: Clock, *, within_s: float) -> None:
        self._lake = lake
        self._within_s = within_s
        self.breaker = Breaker(clock, name="lake", failures=1, pause_s=_PAUSE_S)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recompute")
        self._running: Future[OnlineRows] | None = None

    async def read(self, views: Sequence[str], keys: Columns, at: Int64) -> OnlineRows | None:
        """Return the views' features, or None where they cannot be had in time."""
        if (self._running is not None and not self._running.done()) or not self.breaker.acquire():
            return None
        self._running = self._pool.submit(self._lake.read, views, keys, at)
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(self._running), self._within_s)
        except Exception as error:  # whatever it is, the request is answered without
            _LOG.warning("%s could not be recomputed: %s %s", ", ".join(views), type(error).__name__, error)
            self.breaker.failed()
            return None
        self.breaker.succeeded()
        return found

    def close(self) -> None:
        """Let the thread end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
