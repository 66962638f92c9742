"""Kills under 200 requests/s in an open loop with two replicas: SIGKILL of a replica, and of Serve's controller.

A replica is killed only when two are there. Requests under way in it have no answer; HAProxy asks the other replica.
"""

from __future__ import annotations

import time

import psutil

from benchmarks.harness import Collector
from benchmarks.serving.ours import HEADWAY, Ours
from benchmarks.traffic import Plan, Stream, start
from headway.core.progress import Progress

_RATE = 200.0
_KILLS = 3
_BETWEEN_S = 8.0
_READY_S = 60.0


def measure(collector: Collector, ours: Ours, progress: Progress, *, quick: bool) -> None:
    """Hold the bars on failed requests."""
    ours.deploy(num_replicas=2)
    with progress.stage("kill a replica") as stage:
        failed = [_replica(collector, ours) for _ in range(1 if quick else _KILLS)]
        collector.add(HEADWAY, "200 requests/s, a replica killed", "failed", "requests", failed)
        collector.hold("200 requests/s, a replica killed: failed requests", max(failed), "requests", "<=", 0)
        stage.note(f"{failed} requests failed")
    with progress.stage("kill the controller") as stage:
        lost = _controller(collector, ours)
        collector.hold("200 requests/s, the controller killed: failed requests", lost, "requests", "<=", 0)
        stage.note(f"{lost:.0f} requests failed")


def _replica(collector: Collector, ours: Ours) -> float:
    """Kill one of two replicas and return how many requests failed."""
    _until_two(ours)
    return _killed(collector, ours, ours.replicas()[0], "a replica killed")


def _controller(collector: Collector, ours: Ours) -> float:
    return _killed(collector, ours, ours.controller(), "the controller killed")


def _killed(collector: Collector, ours: Ours, victim: psutil.Process, what: str) -> float:
    stream = Stream(requests=str(ours.requests()), rate=_RATE, start=0.0, end=_BETWEEN_S)
    running = start(Plan(port=ours.port, streams=[stream], connections=64), ours.work)
    running.wait_until(_BETWEEN_S / 4)
    victim.kill()
    traffic = running.traffic(HEADWAY)
    case = f"200 requests/s, {what}"
    for name, q in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0)):
        collector.add(HEADWAY, case, name, "ms", [traffic.quantile(q)])
    return float(traffic.failed)


def _until_two(ours: Ours) -> None:
    """Wait until two replicas are there, which Serve sees to, and have been for a while."""
    end = time.monotonic() + _READY_S
    while len(ours.replicas()) != 2:
        if time.monotonic() > end:
            raise RuntimeError(f"two replicas are not back {_READY_S:.0f} s after a kill")
        time.sleep(0.2)
    time.sleep(3.0)  # until HAProxy has heard of both
