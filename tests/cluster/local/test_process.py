from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from headway.cluster.local.birth import birth
from headway.cluster.local.process import alive, leaders, ours, spawn, stop, tail, wait_gone
from headway.core.errors import ServiceFailed
from headway.core.platform_state import ServiceState

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
]
# a child that loses the marker, as Ray's workers do when they rename themselves, and whose parent is gone
ORPHAN = [
    sys.executable,
    "-c",
    "import os, subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], env={})\n"
    "print('ready', flush=True); time.sleep(60)",
]


def start(home: Path, command: list[str], name: str = "x") -> ServiceState:
    service = spawn(home, name, command, {}, home / f"{name}.log")
    deadline = time.monotonic() + 120
    while "ready" not in tail(Path(service.log)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return service


def test_a_service_is_known_by_its_mark_even_if_nothing_was_recorded(tmp_path: Path) -> None:
    service = start(tmp_path, SLEEP)
    found = ours(tmp_path)
    assert [item.pid for item in found] == [service.pid]
    assert ours(tmp_path / "other") == []
    assert ours(tmp_path, name="y") == []
    stop(found, grace_s=5)
    assert not alive(service)
    assert ours(tmp_path, [service]) == []


def test_what_ignores_a_request_is_killed(tmp_path: Path) -> None:
    service = start(tmp_path, STUBBORN)
    begin = time.monotonic()
    stop(ours(tmp_path), grace_s=0.3)
    assert 0.3 <= time.monotonic() - begin < 10
    assert not alive(service)


def test_descendants_without_the_mark_are_found_by_their_session(tmp_path: Path) -> None:
    service = start(tmp_path, ORPHAN)
    found = ours(tmp_path, [service])
    assert len(found) == 2
    stop(found, grace_s=5)
    assert wait_gone(found, 60) == []


def test_a_reused_pid_is_not_the_service(tmp_path: Path) -> None:
    service = start(tmp_path, SLEEP)
    reused = ServiceState(pid=service.pid, started=service.started - 1_000, log=service.log)
    assert alive(service)
    assert not alive(reused)
    mine = ServiceState(pid=psutil.Process().pid, started=1.0, log="")
    assert not alive(mine)
    assert psutil.Process().pid not in [item.pid for item in ours(tmp_path, [mine])]
    stop(ours(tmp_path), grace_s=5)


def test_a_service_is_itself_whatever_the_wall_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = start(tmp_path, SLEEP)
    booted = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 3_600)
    assert alive(service)
    assert [item.pid for item in leaders([service])] == [service.pid]
    stop(ours(tmp_path), grace_s=5)
    assert not alive(service)


def test_a_service_of_another_boot_or_tick_is_dead(tmp_path: Path) -> None:
    service = start(tmp_path, SLEEP)
    boot, ticks = service.birth.split(":")
    assert service.birth == birth(service.pid)
    for other in (f"x:{ticks}", f"{boot}:{int(ticks) + 1}"):
        assert not alive(msgspec.structs.replace(service, birth=other))
    stop(ours(tmp_path), grace_s=5)


def test_without_a_birth_the_creation_time_decides(tmp_path: Path) -> None:
    old = msgspec.structs.replace(start(tmp_path, SLEEP), birth="")
    assert alive(old)
    assert not alive(msgspec.structs.replace(old, started=old.started - 10))
    stop(ours(tmp_path), grace_s=5)
    assert not alive(old)


def test_a_program_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ServiceFailed, match="x cannot be started"):
        spawn(tmp_path, "x", [str(tmp_path / "missing")], {}, tmp_path / "x.log")


def test_a_service_outlives_interrupts_of_its_starter(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        service = start(tmp_path, SLEEP)
    finally:
        signal.signal(signal.SIGINT, before)
    assert psutil.Process(service.pid).ppid() != 0
    psutil.Process(service.pid).send_signal(signal.SIGINT)
    assert wait_gone([psutil.Process(service.pid)] if alive(service) else [], 60) == []
