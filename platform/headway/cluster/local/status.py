"""What the platform of a home is doing, asked of each service; changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from headway.cluster.local import process as processes
from headway.cluster.local.catalogue import address, services
from headway.cluster.local.service import Context, Service
from headway.cluster.local.services.ray import ServeIngress
from headway.core.platform_state import read_state, resolve
from headway.core.settings import Settings


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
        rows = [*pool.map(lambda service: _service_status(context, service), services()), *_ingress_status(context)]
    complete = all(row.state == "up" for row in rows)
    return Status(
        home=str(settings.home),
        state="up" if complete else "partial",
        services=tuple(rows),
        ports=dict(state.ports),
        processes=len(found),
        memory_mib=used,
    )


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


def _ingress_status(context: Context) -> list[ServiceStatus]:
    """Return a row per port of Serve."""
    state = "up" if ServeIngress().healthy(context) else "down"
    log = str(context.home / "logs" / "serve.log")
    return [
        ServiceStatus(name=name, title=title, state=state, pid=None, address=address(context, port), log=log)
        for name, title, port in (("serve", "Serve", "http"), ("serve-grpc", "Serve, gRPC", "grpc"))
    ]
