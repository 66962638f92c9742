"""Kills under 200 requests/s in an open loop with two replicas: SIGKILL of a replica, and of Serve's controller.

A replica is killed only when two are there. What was under way in it gets no answer: HAProxy asks the other replica
where the request carries an idempotency key, and fails it where a second decision might harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from benchmarks.harness import Collector
from benchmarks.serving.ours import HEADWAY, Ours
from benchmarks.traffic import Plan, Stream, Traffic, start
from headway.core.progress import Progress

_RATE = 200.0
_SECONDS = 8.0
_READY_S = 60.0
_SETTLED_S = 3.0
"""Until HAProxy has heard of a new replica."""


_REPLICA, _KEYED, _CONTROLLER = "a replica killed", "a replica killed, idempotency keys", "the controller killed"


@dataclass(frozen=True, kw_only=True)
class Killed:
    """What a kill cost."""

    traffic: Traffic
    under_way: int
    """Requests without an answer from the kill to the end of the process, in both replicas."""


def measure(collector: Collector, ours: Ours, progress: Progress, *, quick: bool) -> None:
    """Hold the bars on failed requests."""
    ours.deploy(num_replicas=2)
    runs = 1 if quick else 3
    with progress.stage("kill a replica") as stage:
        plain = [_killed(ours, lambda: ours.replicas()[0], keys=None) for _ in range(runs)]
        keyed = [_killed(ours, lambda: ours.replicas()[0], keys=f"kill-{run}") for run in range(runs)]
        failed, with_keys = _record(collector, _REPLICA, plain), _record(collector, _KEYED, keyed)
        beyond = max(kill.traffic.failed - kill.under_way for kill in plain)
        collector.hold(f"{_REPLICA}: failed requests beyond those under way", beyond, "requests", "<=", 0)
        collector.hold(f"{_KEYED}: failed requests", max(with_keys), "requests", "<=", 0)
        stage.note(f"{failed} failed, {with_keys} with idempotency keys")
    with progress.stage("kill the controller") as stage:
        lost = _record(collector, _CONTROLLER, [_killed(ours, ours.controller, keys=None)])
        collector.hold(f"{_CONTROLLER}: failed requests", max(lost), "requests", "<=", 0)
        stage.note(f"{lost} failed")


def _killed(ours: Ours, victim: Callable[[], psutil.Process], *, keys: str | None) -> Killed:
    """Kill a process a quarter into the schedule, with two replicas there."""
    _until_two(ours)
    stream = Stream(requests=str(ours.requests(keys=keys)), rate=_RATE, start=0.0, end=_SECONDS)
    running = start(Plan(port=ours.port, streams=[stream], connections=64), ours.work)
    process = victim()
    running.wait_until(_SECONDS / 4)
    before = time.monotonic() - running.began
    process.kill()
    while _lives(process):  # what reaches its sockets until they close is lost with it
        time.sleep(0.001)
    after = time.monotonic() - running.began
    traffic = running.traffic(HEADWAY)
    under_way = (traffic.due <= after) & (traffic.due + traffic.latency / 1e3 >= before)
    return Killed(traffic=traffic, under_way=int(under_way.sum()))


def _record(collector: Collector, what: str, kills: list[Killed]) -> list[int]:
    """Record latencies and return how many requests failed in each run."""
    case = f"{_RATE:g} requests/s, {what}"
    for name, q in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0)):
        collector.add(HEADWAY, case, name, "ms", [kill.traffic.quantile(q) for kill in kills])
    failed = [kill.traffic.failed for kill in kills]
    collector.add(HEADWAY, case, "failed", "requests", failed)
    collector.add(HEADWAY, case, "under way at the kill", "requests", [kill.under_way for kill in kills])
    return failed


def _lives(process: psutil.Process) -> bool:
    """Whether the process or one of its threads is there: the last one to end closes the sockets."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.Error:
        return False


def _until_two(ours: Ours) -> None:
    """Wait until two replicas are there, which Serve sees to, and HAProxy knows them."""
    end = time.monotonic() + _READY_S
    while len(ours.replicas()) != 2:
        if time.monotonic() > end:
            raise RuntimeError(f"two replicas are not back {_READY_S:.0f} s after a kill")
        time.sleep(0.2)
    time.sleep(_SETTLED_S)
