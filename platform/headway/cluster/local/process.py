"""Starts, recognises and stops the processes of a home.

A process is ours by three signs, so that no kill at any moment hides one and no reused pid is mistaken for one: the
marker in the environment it was started with, the session its service leads, and descent from a process of ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from headway.cluster.local.birth import birth
from headway.cluster.local.ports import home_key
from headway.core.errors import ServiceFailed
from headway.core.platform_state import ServiceState

MARKER = "HEADWAY_PLATFORM"
_CLOCK_SLACK_S = 2.0
_POLL_S = 0.05


def spawn(home: Path, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> ServiceState:
    """Start a detached service in its own session with its output in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    merged = inherited | dict(environment) | {MARKER: home_key(home), "HEADWAY_SERVICE": name}
    try:
        # posix_spawn instead of Popen: nobody waits for a service, it outlives this process
        pid = os.posix_spawn(
            command[0],
            list(command),
            merged,
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        started = psutil.Process(pid).create_time()
    except (OSError, psutil.Error) as error:
        raise ServiceFailed(f"{name} cannot be started: {error}", hint=f"see {log}") from error
    return ServiceState(pid=pid, started=started, log=str(log), birth=birth(pid))


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ours."""
    return [sys.executable, "-m", module, *arguments]


def alive(service: ServiceState) -> bool:
    """Tell whether the recorded process still runs, not another one that got its pid.

    By its birth where that is known; else by its creation time, which moves with the wall clock.
    """
    _reap(service.pid)
    if service.birth:
        return birth(service.pid) == service.birth
    try:
        process = psutil.Process(service.pid)
        if abs(process.create_time() - service.started) > _CLOCK_SLACK_S:
            return False
        return bool(process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False


def ours(home: Path, services: Iterable[ServiceState] = (), *, name: str | None = None) -> list[psutil.Process]:
    """Return every live process of the home, or of one service of it; never this process or its ancestors."""
    marker = home_key(home)
    leaders = {service.pid for service in services if alive(service)}
    sessions: set[int] = {pid for pid in leaders if _session(pid) == pid}
    members: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        environment = _environment(process)
        if environment.get(MARKER) != marker or (name is not None and environment.get("HEADWAY_SERVICE") != name):
            continue
        members[process.pid] = process
        if (session := _session(process.pid)) is not None and environment.get("HEADWAY_SERVICE"):
            sessions.add(session)
    sessions -= {os.getsid(0), 0}
    for process in psutil.process_iter():
        if process.pid in leaders or _session(process.pid) in sessions:
            members[process.pid] = process
    for process in list(members.values()):
        try:
            members |= {child.pid: child for child in process.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in members.values() if process.pid not in spared and _runs(process)]


def stop(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """Ask, then force; returns when all are gone. ServiceFailed names what survived a kill."""
    _signal(processes, signal.SIGTERM)
    if left := wait_gone(processes, grace_s):
        _signal(left, signal.SIGKILL)
        if survivors := wait_gone(left, 10.0):
            pids = ", ".join(str(process.pid) for process in survivors)
            raise ServiceFailed(f"processes survived SIGKILL: {pids}", hint="they hang in the kernel; look at the disk")


def wait_gone(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Return those that still run after at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    left = list(processes)
    while True:
        for process in left:
            _reap(process.pid)
        left = [process for process in left if _runs(process)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_S)


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def run_bounded(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    home: Path,
    timeout_s: float,
    log: Path,
    abandoned: threading.Event,
) -> int:
    """Run a short helper to its end and return its exit status; 124 when it ran out of time or was abandoned."""
    marks = {MARKER: home_key(home), "HEADWAY_SERVICE": "helper"}
    with log.open("ab") as output:
        deadline = time.monotonic() + timeout_s
        with subprocess.Popen(
            command, env={**os.environ, **environment, **marks}, stdout=output, stderr=output, start_new_session=True
        ) as helper:
            while helper.poll() is None:
                if abandoned.is_set() or time.monotonic() > deadline:
                    helper.kill()
                    helper.wait()
                    return 124
                time.sleep(_POLL_S)
            return helper.returncode


def leaders(services: Iterable[ServiceState]) -> list[psutil.Process]:
    """Return the processes of the services that still run."""
    found: list[psutil.Process] = []
    for service in services:
        if alive(service):
            try:
                found.append(psutil.Process(service.pid))
            except psutil.NoSuchProcess:  # ended between the two questions
                continue
    return found


def survivors(found: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run."""
    return [process for process in found if _runs(process)]


def memory_bytes(process: psutil.Process) -> int:
    """Return the memory only this process holds; 0 when it may not be asked or is gone."""
    try:
        return int(process.memory_full_info().uss)
    except (psutil.Error, OSError):
        return 0


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):  # another user's, or gone
        return {}


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # not a child of this process
        return
