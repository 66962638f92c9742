"""How loaded this replica is: what it tells Serve's controller, which sees no request on the hot path."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from headway.core.clock import Clock
from headway.serving.gpu import GpuMeter


class Working(Protocol):
    """What works off a queue (`headway.serving.batching.Batcher`)."""

    queued_rows: int
    rows: int
    """Served so far."""
    busy_s: float
    """Seconds that its executor has worked so far."""


class LoadMeter:
    """Shares since it was last read; one reader."""

    def __init__(
        self,
        work: Working,
        clock: Clock,
        *,
        cpu_s: Callable[[], float] = time.process_time,
        gpu: GpuMeter | None = None,
    ) -> None:
        self._gpu = gpu or GpuMeter()
        self._work = work
        self._clock = clock
        self._cpu_s = cpu_s
        self._at, self._cpu, self._busy, self._rows = clock.monotonic(), cpu_s(), work.busy_s, work.rows

    def read(self) -> dict[str, float]:
        """Return rows that wait and rows served, and the share of time that process or executor worked, in [0, 1].

        With a GPU also `gpu`, its share. One loop serves, so that one core is all a replica can use; an executor that
        waits for a device uses none.
        """
        now, cpu, busy = self._clock.monotonic(), self._cpu_s(), self._work.busy_s
        elapsed = now - self._at
        per_s = 1.0 / elapsed if elapsed > 0 else 0.0
        read = {
            "queued_rows": float(self._work.queued_rows),
            "rows_per_s": (self._work.rows - self._rows) * per_s,
            "busy": min(1.0, max(0.0, cpu - self._cpu, busy - self._busy) * per_s),
        }
        self._at, self._cpu, self._busy, self._rows = now, cpu, busy, self._work.rows
        gpu = self._gpu.share()
        return read if gpu is None else {**read, "gpu": gpu}
