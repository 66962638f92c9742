"""Starts what is missing of a platform, side by side, and gives up together when one service fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headway.cluster.local import ports as port_book
from headway.cluster.local import process as processes
from headway.cluster.local.catalogue import address, services
from headway.cluster.local.service import Context, Service
from headway.cluster.local.services.ray import ServeIngress
from headway.core.errors import HeadwayError, ServiceFailed
from headway.core.platform_state import PlatformState, ServiceState, resolve, state_path, write_state
from headway.core.progress import Progress, Stage
from headway.core.settings import Settings

_POLL_S = 0.1
_PORT_WAIT_S = 5.0


class Start:
    """One `up`: starts services in parallel and remembers which, to undo them."""

    def __init__(self, settings: Settings, state: PlatformState) -> None:
        self.settings = resolve(settings)
        self.state = state
        self._started: list[str] = []
        self._lock = threading.Lock()
        self._abandoned = threading.Event()

    def missing(self, progress: Progress) -> None:
        """Start every service that is not up; raises the first failure after all others were given up."""
        context = self._context()
        missing = [service for service in services() if not self._is_up(service)]
        ingress = ServeIngress()
        needs_ingress = any(service.name == "ray" for service in missing) or not ingress.healthy(context)
        for service in missing:
            self._clear(service)
        self._check_ports(missing)
        with ThreadPoolExecutor(max_workers=8) as pool:
            jobs = [pool.submit(self._start, service, progress) for service in missing]
            if needs_ingress:
                jobs.append(pool.submit(self._start_ingress, ingress, progress))
            try:
                failures = [error for job in jobs if (error := job.exception()) is not None]
            except BaseException:
                self._abandoned.set()
                raise
        if failures:
            # a service that was abandoned because another failed says nothing new
            raise next((error for error in failures if not isinstance(error, _Abandoned)), failures[0])

    def undo(self) -> None:
        """Stop what this run started; a fresh platform leaves no state either."""
        self._abandoned.set()
        kept = {name: item for name, item in self.state.services.items() if name not in self._started}
        for name in self._started:
            item = self.state.services.get(name)
            found = processes.ours(self.settings.home, [item] if item else [], name=name)
            processes.stop(found, grace_s=3.0)
        if kept:
            self._save(kept)
        else:
            state_path(self.settings.home).unlink(missing_ok=True)
            port_book.release(self.settings.home, keep_logs=True)

    def _context(self) -> Context:
        return Context(settings=self.settings, state=self.state)

    def _is_up(self, service: Service) -> bool:
        recorded = self.state.services.get(service.name)
        return recorded is not None and processes.alive(recorded) and service.healthy(self._context())

    def _clear(self, service: Service) -> None:
        """Stop what is left of a service that is not up."""
        recorded = self.state.services.get(service.name)
        left = processes.ours(self.settings.home, [recorded] if recorded else [], name=service.name)
        processes.stop(left, grace_s=service.stop_grace_s)

    def _check_ports(self, missing: Sequence[Service]) -> None:
        """Refuse before starting when a stranger took a recorded port."""
        names = [name for service in missing for name in service.ports()]
        deadline = time.monotonic() + _PORT_WAIT_S
        while True:  # the kernel may need a moment to free the ports of what was just stopped
            taken = {name: self.state.ports[name] for name in names if not port_book.is_free(self.state.ports[name])}
            if not taken or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        if taken:
            listing = ", ".join(f"{name} {port}" for name, port in taken.items())
            raise ServiceFailed(
                f"ports of this platform are in use by other programs: {listing}",
                hint="free them, or `headway down` and `headway up` choose others",
            )

    def _start(self, service: Service, progress: Progress) -> None:
        with progress.stage(service.title) as stage:
            try:
                self._launch(service, stage)
            except BaseException:
                self._abandoned.set()
                raise

    def _launch(self, service: Service, stage: Stage) -> None:
        context = self._context()
        service.prepare(context)
        log = context.home / "logs" / f"{service.name}.log"
        with self._lock:
            if self._abandoned.is_set():
                raise _Abandoned(service.name)
            self._started.append(service.name)
            started = processes.spawn(
                context.home, service.name, service.command(context), service.environment(context), log
            )
            self._save({**self.state.services, service.name: started})
        self._await(service, context, started)
        stage.note(address(context, service.ports()[0]))

    def _await(self, service: Service, context: Context, started: ServiceState) -> None:
        deadline = time.monotonic() + service.start_timeout_s
        log = Path(started.log)
        while not service.healthy(context):
            if self._abandoned.is_set():
                raise _Abandoned(service.name)
            if not processes.alive(started):
                raise ServiceFailed(f"{service.title} ended while starting\n{processes.tail(log)}", hint=f"see {log}")
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    f"{service.title} did not answer within {service.start_timeout_s:.0f} s\n{processes.tail(log)}",
                    hint=f"see {log}",
                )
            time.sleep(_POLL_S)

    def _start_ingress(self, ingress: ServeIngress, progress: Progress) -> None:
        context = self._context()
        with progress.stage("Serve") as stage:
            log = context.home / "logs" / "serve.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            outcome = processes.run_bounded(
                ingress.command(context),
                ingress.environment(context),
                home=context.home,
                timeout_s=ingress.start_timeout_s,
                log=log,
                abandoned=self._abandoned,
            )
            if self._abandoned.is_set():
                raise _Abandoned("serve")
            deadline = time.monotonic() + ingress.start_timeout_s
            while outcome == 0 and not ingress.healthy(context) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if outcome != 0 or not ingress.healthy(context):
                self._abandoned.set()
                raise ServiceFailed(f"Serve did not start\n{processes.tail(log)}", hint=f"see {log}")
            stage.note(address(context, "http"))

    def _save(self, recorded: dict[str, ServiceState]) -> None:
        self.state = PlatformState(
            home=self.state.home, ports=self.state.ports, ray_temp=self.state.ray_temp, services=recorded
        )
        write_state(self.state)


class _Abandoned(HeadwayError):
    """Another service failed first; this one was not waited for."""
