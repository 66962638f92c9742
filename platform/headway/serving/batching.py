"""Work-conserving batching: an idle executor starts at once, a busy one takes what has gathered meanwhile.

There is no wait for a fuller batch, so one lonely request pays nothing, and under load batches grow by themselves. The
bound counts rows, not requests; classes share it by weight (`headway.serving.priority`). A batch that fails is halved
until only the guilty request fails. Whatever happens to callers or executor, every submitted call ends exactly once, at
its deadline at the latest, busy executor or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Generic, Protocol, TypeAlias, TypeVar

from headway.core.clock import Clock
from headway.core.errors import Unavailable
from headway.serving.batch_cost import BatchCost
from headway.serving.errors import own
from headway.serving.priority import WEIGHTS, FairQueue, Priority


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
T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Protocol[T_contra]):
    """Who waits for a result: a future, or whatever else is told once."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: T_contra, /) -> None:
        """Take the result."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Take the error."""
        ...


_Entry: TypeAlias = "tuple[W, Sink[R]]"
MAX_BATCH_ROWS = 512
"""Rows scored together at most, unless a deployment says otherwise."""


class Batcher(Generic[W, R]):
    """One queue of classes before one executor, on one event loop."""

    def __init__(
        self, execute: Callable[[Sequence[W]], Awaitable[Sequence[R | Exception]]], *, max_rows: int, clock: Clock
    ) -> None:
        self._execute = execute
        self._max_rows = max_rows
        self._clock = clock
        self._fair: FairQueue[_Entry[W, R]] = FairQueue()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = inf
        """Monotonic seconds of the timer: no later than the earliest deadline."""
        self._running: list[_Entry[W, R]] = []
        self._running_rows = 0
        self._twins: list[Batcher[W, R]] = []
        self.class_rows = [0] * len(Priority)
        """Rows that wait, by class."""
        self.queued_rows = 0
        """Rows that wait."""
        self.batches = 0
        self.rows = 0
        self.busy_s = 0.0
        """Seconds in which the executor worked."""
        self.expired = 0
        """Calls whose deadline passed before their answer."""
        self.cost = BatchCost()

    def submit(self, work: W, priority: int = Priority.NORMAL) -> asyncio.Future[R]:
        """Queue work; the future gets its result or error."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.submit_to(future, work, priority)
        return future

    def submit_to(self, sink: Sink[R], work: W, priority: int = Priority.NORMAL) -> None:
        """Queue work whose result or error `sink` gets."""
        size = work.size
        self._fair.push((work, sink), priority)
        self.class_rows[priority] += size
        self.queued_rows += size
        if work.deadline < self._look_at:
            self._look(work.deadline)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())
            self._task.add_done_callback(self._ended)

    def wait_s(self, rows: int = 0, priority: int = Priority.NORMAL) -> float:
        """Estimate how long a call of `rows` rows that comes now takes until its answer; 0 when nothing is ahead."""
        running = self._running_rows
        if not running and not self.queued_rows:
            return 0.0
        own = self.class_rows[priority] + rows
        if own - rows < self.queued_rows:  # what waits in other classes counts as far as it is served before
            fair = own / WEIGHTS[priority]
            own += sum(
                min(waiting, int(fair * WEIGHTS[other]))
                for other, waiting in enumerate(self.class_rows)
                if other != priority
            )
        return self.cost.seconds(own + running, max(1, -(-own // self._max_rows)) + (running > 0))

    def batch_s(self) -> float:
        """Estimate what a batch takes before its rows."""
        return self.cost.fixed

    def row_s(self) -> float:
        """Estimate what a row takes in a full batch."""
        return self.cost.seconds(self._max_rows, 1) / self._max_rows

    def twin(self) -> Batcher[W, R]:
        """Return another queue before the same executor, for work that must not wait behind this one's."""
        twin = Batcher(self._execute, max_rows=self._max_rows, clock=self._clock)
        self._twins.append(twin)
        return twin

    async def idle(self) -> None:
        """Return when nothing waits and nothing runs, here and in the twins."""
        while self._task is not None:
            await asyncio.sleep(0.005)
        for twin in self._twins:
            await twin.idle()

    async def _drain(self) -> None:
        try:
            while self.queued_rows or len(self._fair):
                batch = self._take()
                if batch:
                    self._running = batch
                    await self._run(batch)
                    self._running = []
                    # answers leave and new requests are read before the next batch closes: fewer, larger batches
                    await asyncio.sleep(0)
        finally:
            self._over()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Clean up after a task that was cancelled before its first step, and so never reached its own end."""
        if self._task is task:
            self._over()

    def _over(self) -> None:
        """Forget the task; if it was cancelled with work left, nobody may wait for ever."""
        self._task = None
        for _, future in self._running:
            _fail(future, _stopping())
        self._running, self._running_rows = [], 0
        for priority, queue in enumerate(self._fair.queues):
            while queue:
                work, future = queue.popleft()
                self._leave(work.size, priority)
                _fail(future, _stopping())

    def _leave(self, rows: int, priority: int) -> None:
        self.class_rows[priority] -= rows
        self.queued_rows -= rows

    def _take(self) -> list[_Entry[W, R]]:
        batch: list[_Entry[W, R]] = []
        rows, full = 0, False
        now = self._clock.monotonic()
        while not full:
            priority, turn = self._fair.turn()
            if priority < 0:
                break
            queue = self._fair.queues[priority]
            taken = last = left = 0
            while queue and taken <= turn:
                work, future = queue[0]
                size = work.size
                gone = future.done()  # the caller has
                if not gone and work.deadline >= now:
                    if batch and rows + size > self._max_rows:
                        full = True
                        break
                    batch.append(queue.popleft())
                    rows += size
                    taken += size
                    last = size
                else:
                    queue.popleft()
                    if not gone:
                        self._expire(future)
                left += size
            self._leave(left, priority)
            self._fair.served(priority, taken, last)
        return batch

    async def _run(self, batch: list[_Entry[W, R]]) -> None:
        rows = sum(work.size for work, _ in batch)
        self._running_rows = rows
        start = self._clock.monotonic()
        try:
            results = await self._execute([work for work, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} calls")
        except Exception as error:
            await self._isolate(batch, error)
            return
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # something inside was cancelled, not this replica's work
                await self._isolate(batch, RuntimeError(f"cancelled inside: {error}"))
                return
            raise  # `_over` answers the batch
        finally:
            self._running_rows = 0
        self.batches += 1
        self.rows += rows
        took = self._clock.monotonic() - start
        self.busy_s += took
        self.cost.observe(rows, took)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _isolate(self, batch: list[_Entry[W, R]], error: Exception) -> None:
        """Halve a failed batch so that only the guilty fail; capacity errors concern everybody.

        One guilty call among n costs at most 2·log2(n) + 1 executions.
        """
        batch = [entry for entry in batch if not entry[1].done()]
        if len(batch) <= 1 or isinstance(error, Unavailable):
            for _, future in batch:
                _fail(future, own(error))
            return
        middle = len(batch) // 2
        await self._run(batch[:middle])
        await self._run(batch[middle:])

    def _look(self, deadline: float) -> None:
        """Have a look at the deadlines when the earliest has passed: one timer for all calls."""
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = deadline
        # a millisecond late, so that one look finds all that were submitted together
        delay = max(0.0, deadline - self._clock.monotonic()) + 1e-3
        self._timer = asyncio.get_running_loop().call_later(delay, self._look_now)

    def _look_now(self) -> None:
        """Answer every call whose deadline has passed, waiting or running, and say when to look again."""
        now = self._clock.monotonic()
        self._timer, earliest = None, inf
        for priority, queue in enumerate(self._fair.queues):
            late = False
            for work, future in queue:
                late = late or work.deadline < now or future.done()
                earliest = min(earliest, work.deadline) if work.deadline >= now else earliest
            if not late:
                continue
            entries = list(queue)
            queue.clear()
            for work, future in entries:
                if work.deadline >= now and not future.done():
                    queue.append((work, future))
                    continue
                self._leave(work.size, priority)
                if not future.done():
                    self._expire(future)
        for work, future in self._running:
            if work.deadline >= now:
                earliest = min(earliest, work.deadline)
            elif not future.done():
                self._expire(future)
        self._look_at = inf
        if earliest < inf:
            self._look(earliest)

    def _expire(self, future: Sink[R]) -> None:
        self.expired += 1
        ahead = (self.queued_rows + self._running_rows) * self.row_s()
        future.set_exception(Unavailable("the deadline passed before the answer", retry_after_s=ahead))


def _fail(future: Sink[R], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _stopping() -> Unavailable:
    return Unavailable("the replica is stopping", retry_after_s=1.0)
