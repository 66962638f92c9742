"""Faults of the served platform: processes of Serve, HAProxy and replicas are killed and stopped under load.

All rows run with the hook on and off (`tests.serving.test_platform` has the rows that take no faults).
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
import pytest

from benchmarks.stage import USE_CASE
from headway.core.canonical import sha256
from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.core.haproxy import REQUEST_S
from headway.core.routing import VersionRef, promote, read_routing
from headway.governance.keys import MODEL_SIGN, signer_for
from headway.governance.statement import STATEMENT, read_statement, sign_version
from tests.faults.scorecard import Record, record_served
from tests.serving.callers import SHED, Callers
from tests.serving.staging import CONTROLLER, Staged, staged, until

pytestmark = [
    pytest.mark.soak, pytest.mark.platform, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900),
]  # fmt: skip
_REPLICAS = 2
_RATE = 200.0


@dataclass
class Served:
    """Two replicas of the use case, served one of the two ways."""

    platform: Staged
    way: str
    """hook on | hook off"""


@pytest.fixture(scope="module")
def platform() -> Iterator[Staged]:
    with staged() as platform:
        yield platform


@pytest.fixture(scope="module", params=["hook on", "hook off"])
def served(request: pytest.FixtureRequest, platform: Staged) -> Served:
    platform.deploy(hook=request.param == "hook on", num_replicas=_REPLICAS)
    until(lambda: platform.reachable() == _REPLICAS)
    return Served(platform, request.param)


@dataclass(frozen=True)
class Killed:
    """A replica that is no more."""

    at: float
    gone: float
    """When its connections were closed: until then the kernel takes requests for it. Monotonic seconds, as `at`."""


def _kill(victim: psutil.Process) -> Killed:
    at = time.monotonic()
    victim.kill()
    until(lambda: not victim.is_running())  # a zombie's threads may still hold its connections
    return Killed(at, time.monotonic())


def test_a_replica_is_killed(served: Served, record_property: Record) -> None:
    """Only requests that it had may fail, and of these none with an idempotency key: HAProxy repeats them."""
    platform = served.platform
    with platform.callers(_RATE / 2) as callers, platform.callers(_RATE / 2, keyed=True) as keyed:
        time.sleep(2.0)
        killed = _kill(platform.replicas()[0])
        until(lambda: len(platform.replicas()) >= _REPLICAS and platform.reachable() == _REPLICAS)
        seconds = time.monotonic() - killed.at
        time.sleep(1.0)
    assert keyed.lost == []
    record_served(
        record_property, fault=f"a replica is killed, {served.way}",
        done="one of two, SIGKILL under load; half the requests have a key, and none of these fails",
        sent=len(callers.got) + len(keyed.got), failed=len(callers.lost),
        allowed=callers.under_way(killed.at, killed.gone), degraded=callers.degraded + keyed.degraded, seconds=seconds,
        within_s=10.0,
    )  # fmt: skip


def test_the_controller_is_killed(served: Served, record_property: Record) -> None:
    """Then, once a new one runs, a replica: its replacement shows that scaling has resumed."""
    platform = served.platform
    (controller,) = platform.workers(CONTROLLER)
    with platform.callers(_RATE, keyed=True) as callers:
        time.sleep(2.0)
        began = time.monotonic()
        controller.kill()
        until(lambda: [one.pid for one in platform.workers(CONTROLLER)] not in ([], [controller.pid]))
        before = {one.pid for one in platform.replicas()}
        _kill(platform.replicas()[0])
        until(lambda: not before.issuperset(one.pid for one in platform.replicas()))
        seconds = time.monotonic() - began
        until(lambda: platform.reachable() == _REPLICAS)
    record_served(
        record_property, fault=f"Serve's controller is killed, {served.way}",
        done="SIGKILL under load of requests with keys; then a replica, until the new controller starts another",
        sent=len(callers.got), failed=len(callers.lost), degraded=callers.degraded, seconds=seconds, within_s=15.0,
    )  # fmt: skip


def test_a_replica_stands_still(served: Served, record_property: Record) -> None:
    platform = served.platform
    with platform.callers(_RATE) as callers:
        time.sleep(1.0)
        victim = platform.replicas()[0]
        victim.send_signal(signal.SIGSTOP)
        try:
            time.sleep(4.0)
        finally:
            thawed = time.monotonic()
            victim.send_signal(signal.SIGCONT)
        until(lambda: platform.reachable() == _REPLICAS)
        seconds = time.monotonic() - thawed
        time.sleep(1.0)
    waited = sum(got.seconds > 1.0 for got in callers.got)
    record_served(
        record_property, fault=f"a replica stands still, {served.way}",
        done=f"SIGSTOP for 4 s; {waited} requests waited more than a second for it", sent=len(callers.got),
        failed=len(callers.failed), degraded=callers.degraded, seconds=seconds, within_s=10.0,
    )  # fmt: skip


def test_haproxy_is_killed(served: Served, record_property: Record) -> None:
    platform = served.platform
    with platform.callers(50.0, timeout_s=5.0) as callers:
        time.sleep(1.0)
        at = time.monotonic()
        for process in platform.workers("haproxy"):
            process.kill()
        until(lambda: platform.ask("/v2/health/ready")[0] == 200)
        time.sleep(3.0)
    seconds = callers.whole_again(at)
    lost = len(callers.failed)
    assert all(got.at + got.seconds >= at for got in callers.failed)
    assert all(got.status != 500 for got in callers.failed), "refused connections, no half answers"
    record_served(
        record_property, fault=f"HAProxy is killed, {served.way}",
        done="the one way in: callers are refused until Serve starts it again", sent=len(callers.got), failed=lost,
        allowed=lost, degraded=callers.degraded, seconds=seconds, within_s=15.0,
    )  # fmt: skip
    until(lambda: platform.reachable() == _REPLICAS)


def test_slow_heads(served: Served, record_property: Record) -> None:
    """Requests whose head never ends are HAProxy's to give up: a replica does not see them."""
    platform = served.platform
    address = ("127.0.0.1", platform.settings.http_port)
    slow = [socket.create_connection(address, timeout=REQUEST_S) for _ in range(200)]
    for connection in slow:
        connection.sendall(b"POST /fraud/v1/decisions HTTP/1.1\r\nhost: x\r\n")
    with platform.callers(50.0) as callers:
        for _ in range(REQUEST_S - 1):
            time.sleep(1.0)
            for connection in slow:
                connection.sendall(b"x: 1\r\n")
        firsts = {connection.recv(12) for connection in slow}
    for connection in slow:
        connection.close()
    assert firsts == {b"HTTP/1.0 408"} or firsts == {b"HTTP/1.1 408"}
    record_served(
        record_property, fault=f"slow heads, {served.way}",
        done=f"200 connections send a header a second: 408 after {REQUEST_S} s", sent=len(callers.got) + len(slow),
        failed=len(callers.failed), degraded=callers.degraded,
    )  # fmt: skip


def test_a_rolling_redeploy(served: Served, record_property: Record) -> None:
    platform = served.platform
    before = {one.pid for one in platform.replicas()}
    with platform.callers(_RATE / 2) as callers:
        platform.deploy(hook=served.way == "hook on", num_replicas=_REPLICAS)
    assert before.isdisjoint(one.pid for one in platform.replicas())
    late = len(callers.failed) - len(callers.lost)
    record_served(
        record_property, fault=f"code is replaced, {served.way}",
        done=f"a rolling redeploy of both replicas; {late} requests were shed by the machine that started them",
        sent=len(callers.got), failed=len(callers.lost), degraded=callers.degraded,
    )  # fmt: skip


def _versions(platform: Staged, folder: Path) -> Iterator[tuple[str, VersionRef]]:
    """Yield what may be wrong with a version, and a reference to such a one."""
    settings, source = platform.settings, platform.stage.model.parent
    current = read_routing(RedisControlStore(settings.redis_control_url), USE_CASE).champion
    assert current is not None

    def copied(name: str) -> Path:
        return Path(shutil.copytree(source, folder / name))

    stripped = copied("stripped")
    (stripped / "statement.dsse.json").unlink()
    yield "not signed", VersionRef(version="1", path=str(stripped), statement_sha256=current.statement_sha256)
    tampered = copied("tampered")
    (tampered / "model.onnx").write_bytes((source / "model.onnx").read_bytes() + b" ")
    yield "tampered", VersionRef(version="1", path=str(tampered), statement_sha256=current.statement_sha256)
    extra = copied("extra")
    (extra / "hook.py").write_bytes(b"print()")
    yield "an extra file", VersionRef(version="1", path=str(extra), statement_sha256=current.statement_sha256)
    yield "rolled back", VersionRef(version="2", path=str(copied("old")), statement_sha256=current.statement_sha256)
    truncated = copied("truncated")
    fields = msgspec.json.decode(read_statement(truncated).payload_bytes())
    del fields["files"]
    (truncated / STATEMENT).unlink()
    for name in ("model.onnx", "model.json"):
        (truncated / name).write_bytes((source / name).read_bytes()[:1_000])
    envelope = sign_version(truncated, fields | {"version": "3"}, signer_for(settings, MODEL_SIGN))
    yield (
        "truncated, and signed",
        VersionRef(version="3", path=str(truncated), statement_sha256=sha256(envelope.payload_bytes())),
    )


def test_a_model_that_is_not_what_was_signed(served: Served, tmp_path: Path, record_property: Record) -> None:
    """Nobody notices but the audit log and the index: the version that serves goes on."""
    platform, clock = served.platform, SystemClock()
    store = RedisControlStore(platform.settings.redis_control_url)
    good = read_routing(store, USE_CASE).champion
    assert good is not None
    tried = []
    with platform.callers(50.0) as callers:
        for what, ref in _versions(platform, tmp_path):
            before = _refusals(platform)
            promote(store, USE_CASE, ref, reason=what, by="test", now=clock.now())
            until(lambda: _refusals(platform) >= before + _REPLICAS)  # noqa: B023
            tried.append(what)
        began = time.monotonic()
        promote(store, USE_CASE, good, reason="back", by="test", now=clock.now())
        until(lambda: platform.ask("/v2/health/ready")[2]["error"] is None)
        seconds = time.monotonic() - began
    assert {got.version for got in callers.got if got.status == 200} == {"1"}
    record_served(
        record_property, fault=f"a wrong model is promoted, {served.way}",
        done=f"{', '.join(tried)}: each refused by both replicas and audited, version 1 serves on",
        sent=len(callers.got), failed=len(callers.failed), degraded=callers.degraded, seconds=seconds, within_s=5.0,
    )  # fmt: skip


def _refusals(platform: Staged) -> int:
    """Return how many loads were refused, as the audit log has it."""
    lines = [line for path in (platform.settings.home / "audit").rglob("*") if path.is_file()
             for line in path.read_bytes().splitlines()]  # fmt: skip
    return sum(b'"model.load"' in line and b'"refused"' in line for line in lines)


def test_a_spike_of_a_hundred_times_the_rate(served: Served, record_property: Record) -> None:
    """Requests of 200 rows, far more than a small machine can score: refused, or in time; nothing else."""
    platform = served.platform
    rows = platform.stage.rows
    heavy = [json.dumps({"rows": rows[at : at + 200]}).encode() for at in range(0, 1_000, 200)]
    pids = {one.pid for one in platform.replicas()}
    seen: list[int] = []
    with platform.callers(5.0) as before:
        time.sleep(3.0)
    with Callers(platform.decisions, heavy, platform.token(), rate=500.0, timeout_s=30.0) as spike:
        for _ in range(10):
            time.sleep(1.0)
            seen.append(platform.reachable())
    ended = time.monotonic()
    with platform.callers(5.0) as after:
        time.sleep(5.0)
    shed = [got for got in spike.got if got.status in SHED]
    assert all(int(got.headers["retry-after"]) >= 1 for got in shed)
    assert {one.pid for one in platform.replicas()} == pids
    assert set(seen) == {_REPLICAS}, "no replica was taken out"
    served_s = sorted(got.seconds for got in spike.got if got.status == 200)
    failed = [got for got in [*before.got, *after.got] if got.status != 200]
    failed += [got for got in spike.got if got.status not in (200, *SHED)]
    record_served(
        record_property, fault=f"a spike, {served.way}",
        done=f"5 requests/s of a row, then 500/s of 200 rows for 10 s: {len(shed)} of {len(spike.got)} shed with "
        f"Retry-After, p99 of the others {served_s[int(len(served_s) * 0.99)]:.2f} s, no replica taken out",
        sent=len(before.got) + len(spike.got) + len(after.got), failed=len(failed), degraded=spike.degraded,
        seconds=after.whole_again(ended), within_s=5.0,
    )  # fmt: skip
