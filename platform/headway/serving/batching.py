"""Work-conserving batching: an idle executor starts at once, a busy one takes what has gathered meanwhile.

There is no wait for a fuller batch, so one lonely request pays nothing, and under load batches grow by themselves. The
bound counts rows, not requests. A batch that fails is halved until only the guilty request fails.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from headway.core.clock import Clock
from headway.core.errors import HeadwayError, Unavailable


class Work(Protocol):
    """What can be batched."""

    @property
    def size(self) -> int:
        """Rows."""
        ...

    @property
    def deadline(self) -> float:
        """Monotonic seconds after which nobody waits for the answer."""
        ...


W = TypeVar("W", bound=Work)
R = TypeVar("R")
MAX_BATCH_ROWS = 512
"""Rows scored together at most, unless a deployment says otherwise."""
_WEIGHT = 0.05


class BatchCost:
    """What a batch of n rows takes: t ≈ a + b·n, least squares over a moving window (BentoML's model of a batch)."""

    def __init__(self) -> None:
        self._n = self._t = self._nn = self._nt = 0.0
        self._seen = 0

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one batch."""
        self._seen += 1
        weight = max(_WEIGHT, 1.0 / self._seen)
        self._n += weight * (rows - self._n)
        self._t += weight * (seconds - self._t)
        self._nn += weight * (rows * rows - self._nn)
        self._nt += weight * (rows * seconds - self._nt)

    def seconds(self, rows: int, batches: int) -> float:
        """Estimate `batches` batches that hold `rows` rows together."""
        variance = self._nn - self._n * self._n
        slope = max(0.0, (self._nt - self._n * self._t) / variance) if variance > 0.5 else 0.0
        return batches * max(0.0, self._t - slope * self._n) + rows * slope


class Batcher(Generic[W, R]):
    """One queue before one executor, on one event loop."""

    def __init__(
        self, execute: Callable[[Sequence[W]], Awaitable[Sequence[R | Exception]]], *, max_rows: int, clock: Clock
    ) -> None:
        self._execute = execute
        self._max_rows = max_rows
        self._clock = clock
        self._queue: deque[tuple[W, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._running_rows = 0
        self.queued_rows = 0
        """Rows that wait."""
        self.batches = 0
        self.rows = 0
        self._cost = BatchCost()

    def submit(self, work: W) -> asyncio.Future[R]:
        """Queue work; the future gets its result or error."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._queue.append((work, future))
        self.queued_rows += work.size
        if self._task is None:
            self._task = loop.create_task(self._drain())
        return future

    def wait_s(self) -> float:
        """Estimate how long work that comes now takes until its answer; 0 when nothing is ahead of it."""
        ahead = self.queued_rows + self._running_rows
        return self._cost.seconds(ahead, 1 + -(-ahead // self._max_rows)) if ahead else 0.0

    async def idle(self) -> None:
        """Return when nothing waits and nothing runs."""
        while self._task is not None:
            await asyncio.sleep(0.005)

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = self._take()
                if batch:
                    await self._run(batch)
                    # answers leave and new requests are read before the next batch closes: fewer, larger batches
                    await asyncio.sleep(0)
        finally:
            self._task = None
            if self._queue:  # cancelled with work left: nobody may wait forever
                self._fail_rest()

    def _take(self) -> list[tuple[W, asyncio.Future[R]]]:
        batch: list[tuple[W, asyncio.Future[R]]] = []
        rows = 0
        now = self._clock.monotonic()
        while self._queue:
            work, future = self._queue[0]
            if batch and rows + work.size > self._max_rows:
                break
            self._queue.popleft()
            self.queued_rows -= work.size
            if future.done():  # the caller has gone
                continue
            if work.deadline < now:
                future.set_exception(Unavailable("the deadline passed while the request waited", retry_after_s=1.0))
                continue
            batch.append((work, future))
            rows += work.size
        return batch

    async def _run(self, batch: list[tuple[W, asyncio.Future[R]]]) -> None:
        rows = sum(work.size for work, _ in batch)
        self._running_rows = rows
        start = self._clock.monotonic()
        try:
            results = await self._execute([work for work, _ in batch])
        except Exception as error:
            self._running_rows = 0
            await self._isolate(batch, error)
            return
        except asyncio.CancelledError:
            for _, future in batch:
                if not future.done():
                    future.set_exception(Unavailable("the replica is stopping", retry_after_s=1.0))
            raise
        self._running_rows = 0
        self.batches += 1
        self.rows += rows
        self._cost.observe(rows, self._clock.monotonic() - start)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _isolate(self, batch: list[tuple[W, asyncio.Future[R]]], error: Exception) -> None:
        """Halve a failed batch so that only the guilty fail; capacity errors concern everybody."""
        if len(batch) == 1 or isinstance(error, Unavailable):
            for _, future in batch:
                if not future.done():
                    future.set_exception(own(error))
            return
        middle = len(batch) // 2
        await self._run(batch[:middle])
        await self._run(batch[middle:])

    def _fail_rest(self) -> None:
        while self._queue:
            work, future = self._queue.popleft()
            self.queued_rows -= work.size
            if not future.done():
                future.set_exception(Unavailable("the replica is stopping", retry_after_s=1.0))


def own(error: Exception) -> Exception:
    """Return an exception per caller: one shared object would collect everybody's traceback."""
    return copy.copy(error) if isinstance(error, HeadwayError) else RuntimeError(str(error))
