"""The monitor's process: a named, detached Ray actor per use case that ticks in a thread of its own.

Ray restarts it after a kill; the new process takes the lease (its own at once, another's after expiry), reads the
state, and goes on where the last acknowledged write left off. The lease makes sure that at most one acts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import msgspec

from headway.core.clock import SystemClock
from headway.core.errors import Conflict, HeadwayError, ServiceFailed
from headway.core.lease import LeaseLost
from headway.core.ray_session import NAMESPACE, run_in_background
from headway.monitoring.acts import ThreadRunner
from headway.monitoring.service import MonitorParts, MonitorService

_log = logging.getLogger(__name__)

Build = Callable[[str], MonitorParts]
"""Builds a use case's parts in the actor's process; an importable function, so that a restart finds it again."""


class ActorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the actor is."""

    role: str
    """active | standby | stopped."""
    ticks: int
    pid: int
    error: str
    """Of the last tick; empty when it went well."""


class MonitorProcess:
    """Ticks until told to stop; stands by while another monitor holds the lease."""

    def __init__(self, use_case: str, build: Build, holder: str) -> None:
        self._use_case = use_case
        self._build = build
        self._holder = holder
        self._acts = ThreadRunner()
        self._stop = Event()
        self._parts: MonitorParts | None = None
        self._service: MonitorService | None = None
        self._ticks = 0
        self._error = ""
        self._thread = Thread(target=self._run, name=f"headway-monitor-{use_case}", daemon=True)
        self._thread.start()

    def status(self) -> ActorStatus:
        """Return role, ticks and the last error."""
        role = "stopped" if self._stop.is_set() else "standby" if self._service is None else "active"
        return ActorStatus(role=role, ticks=self._ticks, pid=os.getpid(), error=self._error)

    def stop(self) -> None:
        """End the thread after its tick and let a successor in."""
        self._stop.set()
        self._thread.join(timeout=30.0)
        if self._service is not None:
            self._service.close()
            self._service = None

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                if self._parts is None:
                    self._parts = self._build(self._use_case)
                if self._service is None:
                    self._service = MonitorService(self._parts, holder=self._holder, run=self._acts)
                pause = 0.0 if self._service.tick() else self._parts.monitor.interval_s
                self._ticks += 1
                self._error = ""
            except (LeaseLost, Conflict) as error:
                self._service, pause = None, 1.0
                self._note(str(error))
            except HeadwayError as error:
                pause = 1.0
                self._note(str(error))
            except Exception as error:  # a monitor outlives whatever a driver raises, and says so
                self._service, pause = None, 1.0
                _log.exception("monitor %s: tick failed", self._use_case)
                self._note(f"{type(error).__name__}: {error}")

    def _note(self, error: str) -> None:
        if error != self._error:
            _log.warning("monitor %s: %s", self._use_case, error)
        self._error = error


def actor_name(use_case: str) -> str:
    """Return the actor's name in the namespace `headway`."""
    return f"headway-monitor-{use_case}"


def start_monitor(use_case: str, build: Build, *, timeout_s: float = 90.0) -> Any:
    """Start the use case's monitor, in place of a running one, and return its handle; needs a connected Ray.

    Raises ServiceFailed where the old actor does not go or the new one does not answer in time.
    """
    import ray

    stop_monitor(use_case, timeout_s=timeout_s)
    actor = ray.remote(_actor_class()).options(
        name=actor_name(use_case),
        namespace=NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=4,
    )
    handle = actor.remote(use_case, build)
    try:
        ray.get(handle.status.remote(), timeout=timeout_s)
    except ray.exceptions.RayError as error:
        raise ServiceFailed(f"the monitor of {use_case} did not start: {error}", hint="headway status") from error
    return handle


def stop_monitor(use_case: str, *, timeout_s: float = 90.0) -> bool:
    """Stop the use case's monitor; return whether one was running. Its state stays."""
    import ray

    handle = find_monitor(use_case)
    if handle is None:
        return False
    try:
        ray.get(handle.stop.remote(), timeout=timeout_s)
    except ray.exceptions.RayError as error:
        _log.warning("monitor %s did not stop by itself: %s", use_case, error)
    ray.kill(handle, no_restart=True)
    clock = SystemClock()
    deadline = clock.monotonic() + timeout_s
    while find_monitor(use_case) is not None:
        if clock.monotonic() > deadline:
            raise ServiceFailed(f"the monitor of {use_case} does not go", hint="headway down")
        Event().wait(0.05)
    return True


def find_monitor(use_case: str) -> Any | None:
    """Return the handle of the running monitor, or None."""
    import ray

    try:
        return ray.get_actor(actor_name(use_case), namespace=NAMESPACE)
    except ValueError:
        return None


def _actor_class() -> type[MonitorProcess]:
    """Return the class that Ray runs: its holder is the actor's id, which survives restarts."""
    import ray

    class HeadwayMonitor(MonitorProcess):
        """`MonitorProcess` inside Ray."""

        def __init__(self, use_case: str, build: Build) -> None:
            run_in_background()
            super().__init__(use_case, build, holder=ray.get_runtime_context().get_actor_id())

    return HeadwayMonitor
