"""The actor under kill -9, on a real Ray and a real control store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.core.counts import RedisCountsChannel
from headway.core.routing import promote, read_routing
from headway.core.times import HOUR, SECOND
from headway.governance.audit import AuditLog
from headway.monitoring.actor import ActorStatus, MonitorProcess, find_monitor, start_monitor, stop_monitor
from headway.monitoring.definitions import Monitor
from headway.monitoring.loop import Phase
from headway.monitoring.service import MonitorParts
from headway.monitoring.state import read_state
from tests.monitoring.support import BUDGET, POLICY, START, USE_CASE, Acts, delta, ref, reference


def build(use_case: str, *, url: str, audit: str) -> MonitorParts:
    store = RedisControlStore(url)
    return MonitorParts(
        monitor=Monitor(use_case=use_case, window_rows=1_000, interval="50ms"),
        budget=BUDGET,
        policy=POLICY,
        store=store,
        channel=RedisCountsChannel(url),
        references=lambda champion: reference(champion.version),
        ports=Acts(store).ports(),
        audit=AuditLog(Path(audit), "monitor", SystemClock()),
        clock=SystemClock(),
        lease=10 * SECOND,
    )


def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def counted(store: RedisControlStore, sequence: int) -> bool:
    """Whether the monitor has acknowledged what came before `sequence`; more is on its way."""
    return read_state(store, USE_CASE).sequences.get("r1", 0) >= sequence


def test_the_stream_keeps_order_and_an_unreadable_entry_is_a_gap(control_url: str) -> None:
    channel = RedisCountsChannel(control_url)
    rng = np.random.default_rng(1)
    sent = [delta(index, 10, rng=rng) for index in range(4)]
    channel.publish(sent[0])
    redis.Redis.from_url(control_url).xadd(f"headway:counts:{USE_CASE}", {"delta": b"rubbish"})
    for item in sent[1:]:
        channel.publish(item)
    first, cursor = channel.read(USE_CASE, "")
    assert list(first) == sent
    assert channel.read(USE_CASE, cursor) == ([], cursor)


def test_a_second_process_stands_by_and_takes_over(control_url: str, tmp_path: Path) -> None:
    store = RedisControlStore(control_url)
    promote(store, USE_CASE, ref("1"), reason="first", by="test", now=0)
    make = partial(build, url=control_url, audit=str(tmp_path / "audit"))
    first = MonitorProcess(USE_CASE, make, "first")
    until(lambda: first.status().role == "active")
    second = MonitorProcess(USE_CASE, make, "second")
    until(lambda: "held by first" in second.status().error)
    assert second.status().role == "standby"
    first.stop()
    until(lambda: second.status().role == "active")
    assert first.status().role == "stopped"
    second.stop()


@pytest.mark.ray
@pytest.mark.slow
def test_kill_9_loses_no_count_and_the_loop_ends(ray_session: str, control_url: str, tmp_path: Path) -> None:
    import ray

    store, channel = RedisControlStore(control_url), RedisCountsChannel(control_url)
    promote(store, USE_CASE, ref("1"), reason="first", by="test", now=0)
    make = partial(build, url=control_url, audit=str(tmp_path / "audit"))
    handle: Any = start_monitor(USE_CASE, make)

    def asked() -> ActorStatus:
        status: ActorStatus = ray.get(handle.status.remote(), timeout=60)
        return status

    rng = np.random.default_rng(41)
    try:
        published, pids = 0, set[int]()
        for index in range(30):
            shift = 0.0 if index < 20 else 0.8
            channel.publish(delta(index, 100, rng=rng, shift=shift, first_time=START + index * HOUR))
            published += 100
            if index in (8, 24):
                until(lambda: asked().role == "active")  # one that holds the lease dies
                pids.add(asked().pid)
                os.kill(asked().pid, signal.SIGKILL)
        until(lambda: read_state(store, USE_CASE).windows_total == 3)
        until(lambda: read_state(store, USE_CASE).loop.phase is Phase.IDLE)
        until(lambda: (routing := read_routing(store, USE_CASE)).champion == ref("2") and routing.generation == 2)
        state = read_state(store, USE_CASE)
        assert state.accounts.compared == published
        assert (state.accounts.duplicate_deltas, state.accounts.lost_deltas, state.alarms_total) == (0, 0, 1)
        assert state.epoch >= 3
        assert len(pids) == 2
        assert stop_monitor(USE_CASE)
        assert find_monitor(USE_CASE) is None
        assert not stop_monitor(USE_CASE)
    finally:
        stop_monitor(USE_CASE)
