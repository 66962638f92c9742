"""`up` and `down` of a home: idempotent, repairing, bounded in time, and never silent about what failed.

The state file is written before anything starts and after every start, under a lock of the home; what a kill left
behind between two writes is found by the marks processes carry (`headway.cluster.local.process`).
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headway.cluster.local import continuity
from headway.cluster.local import ports as port_book
from headway.cluster.local import process as processes
from headway.cluster.local.catalogue import services
from headway.cluster.local.starting import Start
from headway.core.errors import CorruptState, DefinitionError, ServiceFailed, Unavailable
from headway.core.platform_state import PlatformState, read_state, state_path, write_state
from headway.core.progress import Progress, RecordedProgress, Stage
from headway.core.project import Project
from headway.core.settings import Settings
from headway.governance.contract import load_contract
from headway.governance.keys import contract_role, development_keys

_POLL_S = 0.1
_LOCK_S = 300.0


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
        run = Start(settings, state)
        try:
            run.missing(drawn)
            if continuity.opened(run.state):
                with drawn.stage("Features") as stage:
                    stage.note(
                        "Redis was not stopped properly and may have lost writes: views say that they are behind until "
                        "the next ingestion fills them from the lake, or: headway features materialize USECASE"
                    )
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


def _claim(settings: Settings) -> PlatformState:
    """Return the recorded state, or a new one with ports chosen and written before anything starts."""
    home = settings.home
    state = read_state(home)
    if state is not None and any(processes.alive(item) for item in state.services.values()):
        return state
    # nothing of an old one runs any more: choose ports afresh, somebody may have taken them meanwhile
    processes.stop(processes.ours(home, state.services.values() if state else ()), grace_s=5.0)
    with port_book.reserved(home, {"http": settings.http_port, "grpc": settings.grpc_port}) as ports:
        fresh = PlatformState(home=str(home), ports=ports, ray_temp=str(port_book.ray_temp(home)))
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
        if group is others and state is not None:
            with suppress(Unavailable):  # it is down already
                continuity.closing(state)
        found = processes.leaders(leaders)
        processes.stop(found, grace_s=max(service.stop_grace_s for service in group))
    processes.stop(processes.survivors(everything), grace_s=2.0)
    processes.stop(processes.ours(settings.home, recorded.values()), grace_s=2.0)
    return len(everything)


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
