"""`up`, `status` and `down` of a home: idempotent, repairing, bounded in time, and never silent about what failed.

The state file is written before anything starts and after every start, under a lock of the home; what a kill left
behind between two writes is found by the marks processes carry (`headway.cluster.local.process`).
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headway.cluster.local import ports as port_book
from headway.cluster.local import process as processes
from headway.cluster.local.service import Context, Service
from headway.cluster.local.services.issuer import IssuerService
from headway.cluster.local.services.mlflow import MlflowService
from headway.cluster.local.services.ray import RayService, ServeIngress
from headway.cluster.local.services.redis import RedisService
from headway.core.errors import CorruptState, DefinitionError, HeadwayError, ServiceFailed
from headway.core.platform_state import PlatformState, ServiceState, read_state, resolve, state_path, write_state
from headway.core.progress import Progress, RecordedProgress, Stage
from headway.core.project import Project
from headway.core.settings import Settings
from headway.governance.contract import load_contract
from headway.governance.keys import contract_role, development_keys

_POLL_S = 0.1
_LOCK_S = 180.0


def services() -> tuple[Service, ...]:
    """Return the services of a platform, those that take longest first."""
    return (
        RayService(),
        MlflowService(),
        IssuerService(),
        RedisService(name="redis-features", durable=False),
        RedisService(name="redis-control", durable=True),
    )


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """What one service is doing."""

    name: str
    title: str
    state: str
    """up | starting or hung | down."""
    pid: int | None
    address: str
    log: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """What the platform of a home is doing."""

    home: str
    state: str
    """up | partial | down."""
    services: tuple[ServiceStatus, ...] = ()
    ports: dict[str, int] = field(default_factory=dict)
    processes: int = 0
    memory_mib: int = 0
    """Sum of the processes' own (unique) memory."""


def up(settings: Settings, progress: Progress | None = None) -> PlatformState:
    """Start what does not run, repair what half runs, and return the state.

    Raises ServiceFailed with the end of the log of a service that did not start; what this call started is stopped.
    """
    drawn = progress or RecordedProgress()
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(settings.home):
        with drawn.stage("Keys") as stage:
            make_keys(settings, stage)
        state = _claim(settings)
        run = _Run(settings, state)
        try:
            run.start_missing(drawn)
        except BaseException:
            run.undo()
            raise
        return run.state


def down(settings: Settings, progress: Progress | None = None, *, force: bool = False) -> int:
    """Stop every process of the home and return how many there were; a second call finds none.

    With `force` a state file that cannot be read is set aside, never deleted, and processes are found by their marks.
    """
    drawn = progress or RecordedProgress()
    if not settings.home.is_dir():
        return 0
    with _locked(settings.home):
        try:
            state = read_state(settings.home)
        except CorruptState:
            if not force:
                raise
            state = None
            path = state_path(settings.home)
            path.rename(path.with_name(f"{path.name}.corrupt-{time.time_ns()}"))
        with drawn.stage("stop") as stage:
            stopped = _stop_everything(settings, state)
            stage.note(f"{stopped} processes")
        state_path(settings.home).unlink(missing_ok=True)
        port_book.release(settings.home)
        return stopped


def status(settings: Settings) -> Status:
    """Return what runs, asking each service; changes nothing."""
    state = read_state(settings.home)
    recorded = state.services.values() if state else ()
    found = processes.ours(settings.home, recorded)
    used = sum(processes.memory_bytes(item) for item in found) >> 20
    if state is None:
        return Status(
            home=str(settings.home), state="partial" if found else "down", processes=len(found), memory_mib=used
        )
    context = Context(settings=resolve(settings), state=state)
    with ThreadPoolExecutor(max_workers=8) as pool:
        rows = [*pool.map(lambda service: _service_status(context, service), services()), _ingress_status(context)]
    complete = all(row.state == "up" for row in rows)
    return Status(
        home=str(settings.home),
        state="up" if complete else "partial",
        services=tuple(rows),
        ports=dict(state.ports),
        processes=len(found),
        memory_mib=used,
    )


class _Run:
    """One `up`: starts services in parallel and remembers which, to undo them."""

    def __init__(self, settings: Settings, state: PlatformState) -> None:
        self.settings = resolve(settings)
        self.state = state
        self._started: list[str] = []
        self._lock = threading.Lock()
        self._abandoned = threading.Event()

    def start_missing(self, progress: Progress) -> None:
        context = self._context()
        missing = [service for service in services() if not self._is_up(service)]
        ingress = ServeIngress()
        if not missing and ingress.healthy(context):
            return
        for service in missing:
            self._clear(service)
        self._check_ports(missing)
        with ThreadPoolExecutor(max_workers=8) as pool:
            jobs = [pool.submit(self._start, service, progress) for service in missing]
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
        taken = {name: self.state.ports[name] for name in names if not port_book.is_free(self.state.ports[name])}
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


def make_keys(settings: Settings, stage: Stage) -> None:
    """Make development keys for the platform and for every role that a contract of the project names."""
    roles: set[str] = set()
    project = Project(settings.project)
    for use_case in project.use_cases():
        try:
            contract = load_contract(project.app_folder(use_case) / "contract.yaml").contract
        except DefinitionError as error:  # the platform runs without this use case; its own commands refuse it
            stage.note(f"no keys for {use_case}: {error}")
            continue
        roles |= {contract_role(role) for role in contract.signoff}
    development_keys(settings.home, roles)


def address(context: Context, name: str) -> str:
    """Return where a port is reached, for people."""
    scheme = "redis" if name.startswith("redis") else "ray" if name.startswith("ray") else "http"
    host = context.settings.http_host if name == "http" else "127.0.0.1"
    return f"{scheme}://{host}:{context.port(name)}"


def _claim(settings: Settings) -> PlatformState:
    """Return the recorded state, or a new one with ports chosen and written before anything starts."""
    home = settings.home
    state = read_state(home)
    if state is not None:
        if any(processes.alive(item) for item in state.services.values()):
            return state
        # nothing of it runs any more: choose ports afresh, somebody may have taken the old ones meanwhile
    processes.stop(processes.ours(home, state.services.values() if state else ()), grace_s=5.0)
    fresh = PlatformState(
        home=str(home),
        ports=port_book.reserve(home, {"http": settings.http_port}),
        ray_temp=str(port_book.ray_temp(home)),
    )
    write_state(fresh)
    return fresh


def _stop_everything(settings: Settings, state: PlatformState | None) -> int:
    recorded = state.services if state else {}
    everything = processes.ours(settings.home, recorded.values())
    ordered = services()
    # Ray first: replicas and jobs still write to the Redis servers and to MLflow while they end
    ray, others = ordered[:1], ordered[1:]
    for group in (ray, others):
        leaders = [recorded[service.name] for service in group if service.name in recorded]
        found = processes.leaders(leaders)
        processes.stop(found, grace_s=max(service.stop_grace_s for service in group))
    processes.stop(processes.survivors(everything), grace_s=2.0)
    processes.stop(processes.ours(settings.home, recorded.values()), grace_s=2.0)
    return len(everything)


def _service_status(context: Context, service: Service) -> ServiceStatus:
    recorded = context.state.services.get(service.name)
    running = recorded is not None and processes.alive(recorded)
    healthy = running and service.healthy(context)
    return ServiceStatus(
        name=service.name,
        title=service.title,
        state="up" if healthy else "starting or hung" if running else "down",
        pid=recorded.pid if recorded and running else None,
        address=address(context, service.ports()[0]),
        log=recorded.log if recorded else "",
    )


def _ingress_status(context: Context) -> ServiceStatus:
    return ServiceStatus(
        name="serve",
        title="Serve",
        state="up" if ServeIngress().healthy(context) else "down",
        pid=None,
        address=address(context, "http"),
        log=str(context.home / "logs" / "serve.log"),
    )


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the home's lock, so that two commands at once do their work one after the other."""
    with (home / "platform.lock").open("a") as file:
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServiceFailed(
                        f"another headway up or down holds {home} for {_LOCK_S:.0f} s", hint="look for it with ps"
                    ) from None
                time.sleep(_POLL_S)
        yield
