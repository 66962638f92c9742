"""The open-loop HTTP load generator on raw connections; `benchmarks.traffic` starts it.

Arrivals are Poisson processes, drawn before the start. A request that finds no free connection waits for one, and that
wait counts. Timers of the event loop are of a millisecond: latencies are too long by up to that.

`python -m benchmarks.open_loop PLAN OUT`: PLAN is a JSON `Plan`; OUT gets the arrays of `Traffic`, and one JSON line
with the generator's own share of a core is printed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.load import read_requests, whole
from benchmarks.traffic import LEAD_S, LOST, UNANSWERED, Plan, Traffic


class _Connection(asyncio.Protocol):
    """One connection of the pool, with at most one request under way."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None
        self._request = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's do not inherit from asyncio's
        self._pool.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._request >= 0:
            self._pool.finish(self._request, LOST, retry_after=False)
        self._pool.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._request < 0:  # told that it was idle for too long; the end of the connection follows
            return
        self._buffer = self._buffer + data if self._buffer else data
        head = whole(self._buffer)
        if head is None:
            return
        status = int(head[9:12])
        self._pool.finish(self._request, status, retry_after=status != 200 and b"\r\nretry-after:" in head)
        self._buffer, self._request = b"", -1
        self._pool.free(self)

    def send(self, index: int, request: bytes) -> None:
        assert self._transport is not None
        self._request = index
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Pool:
    """Sends what is due over free connections, the one used last first."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        self._plan = plan
        self._loop = loop
        files = [read_requests(Path(stream.requests)) for stream in plan.streams]
        self.due, self.stream = arrivals(plan)
        turns = [0] * len(files)
        self._requests = []
        for stream in self.stream.tolist():
            self._requests.append(files[stream][turns[stream] % len(files[stream])])
            turns[stream] += 1
        self._times = self.due.tolist()
        count = len(self._times)
        self._answered = [float("nan")] * count
        self._status = [UNANSWERED] * count
        self._retry_after = [False] * count
        self._idle: list[_Connection] = []
        self._waiting: deque[int] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._all: set[_Connection] = set()
        self._next = self._finished = 0
        self._start = 0.0
        self._over = False

    async def open(self) -> float:
        """Open all connections; return when second 0 of the schedule is, in monotonic seconds."""
        for _ in range(self._plan.connections):
            await self._open()
        self._start = time.monotonic() + LEAD_S
        return self._start

    async def run(self) -> Traffic:
        """Send everything and wait for the answers."""
        cpu, wall = time.process_time(), time.monotonic()
        self._tick()
        seconds = max(stream.end for stream in self._plan.streams)
        end = self._start + seconds + self._plan.patience_s
        while (self._finished < len(self._times) or time.monotonic() < self._start + seconds) and (
            time.monotonic() < end
        ):
            await asyncio.sleep(0.02)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        now, self._over = time.monotonic(), True
        for connection in self._all:
            connection.close()
        answered = np.array(self._answered) - self._start
        return Traffic(
            due=self.due,
            latency=(np.where(np.isnan(answered), now - self._start, answered) - self.due) * 1e3,
            status=np.array(self._status, dtype=np.int16),
            retry_after=np.array(self._retry_after, dtype=np.bool_),
            stream=self.stream,
            seconds=seconds,
            cpu=cpu / wall,
        )

    def free(self, connection: _Connection) -> None:
        """Take a connection back, or give it the request that has waited longest."""
        if self._over:
            return
        self._all.add(connection)
        if self._waiting:
            index = self._waiting.popleft()
            connection.send(index, self._requests[index])
        else:
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """Replace a connection that ended."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._over:
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def finish(self, index: int, status: int, *, retry_after: bool) -> None:
        """Note what became of a request."""
        if not self._over:
            self._answered[index] = time.monotonic()
            self._status[index] = status
            self._retry_after[index] = retry_after
            self._finished += 1

    def _tick(self) -> None:
        """Send everything that is due and sleep until the next is."""
        if self._over:
            return
        now = time.monotonic() - self._start
        times, index = self._times, self._next
        while index < len(times) and times[index] <= now:
            if self._idle:
                self._idle.pop().send(index, self._requests[index])
            else:
                self._waiting.append(index)
            index += 1
        self._next = index
        if index < len(times):
            self._loop.call_later(max(0.0, times[index] - now), self._tick)

    async def _open(self) -> None:
        while not self._over:
            try:
                await self._loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._plan.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


def arrivals(plan: Plan) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int16]]:
    """Return the times of all arrivals in order, and the stream of each.

    A Poisson process: given how many arrive, their times are independent and uniform.
    """
    random = np.random.default_rng(plan.seed)
    times, kinds = [], []
    for kind, stream in enumerate(plan.streams):
        span = stream.end - stream.start
        count = int(random.poisson(stream.rate * span))
        times.append(stream.start + np.sort(random.uniform(0.0, span, count)))
        kinds.append(np.full(count, kind, dtype=np.int16))
    due, kind_of = np.concatenate(times), np.concatenate(kinds)
    order = np.argsort(due, kind="stable")
    return due[order], kind_of[order]


async def _drive(plan: Plan) -> Traffic:
    pool = _Pool(plan, asyncio.get_running_loop())
    start = await pool.open()
    print(start, flush=True)
    return await pool.run()


def main() -> None:
    """Run once."""
    gc.disable()  # a pause of the generator would be counted as the server's
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    traffic = uvloop.run(_drive(plan))
    np.savez(
        sys.argv[2],
        due=traffic.due,
        latency=traffic.latency,
        status=traffic.status,
        retry_after=traffic.retry_after,
        stream=traffic.stream,
    )
    print(json.dumps({"seconds": traffic.seconds, "cpu": traffic.cpu}))


if __name__ == "__main__":
    main()
