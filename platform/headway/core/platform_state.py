"""The state file of the embedded platform: which services run, where, and as which processes.

It lives in core because serving, training and the loop resolve empty service addresses from it, in the driver and in
Ray workers alike; only `headway.cluster.local` writes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from headway.core.errors import CorruptState, ServiceFailed
from headway.core.settings import Settings, load_settings

STATE_FILE = "platform.json"
FORMAT = 1


class ServiceState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One service that was started."""

    pid: int
    """Leader of the service's own session."""
    started: float
    """Creation time of that process, seconds since the epoch: tells a reused pid from the service."""
    log: str
    """File that holds its output."""
    birth: str = ""
    """Boot and tick of its start (`headway.cluster.local.birth`); empty where the system does not tell."""


class PlatformState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything `down` and a repairing `up` need; written before a service starts and after."""

    format: int = FORMAT
    home: str
    """Absolute folder this state belongs to: a copied folder must not stop the original's services."""
    ports: dict[str, int]
    """Name → port on loopback, fixed while the platform is up."""
    ray_temp: str
    """Short folder of sockets and of Ray's logs outside `home`, removed by `down`."""
    services: dict[str, ServiceState] = {}

    @property
    def redis_features_url(self) -> str:
        """Address of the features Redis: its socket, which halves the way of a request against TCP on loopback."""
        return f"unix://{self.features_socket}"

    @property
    def features_socket(self) -> str:
        """Unix socket of the features Redis; Ray's folder is short enough for one and private."""
        return f"{self.ray_temp}/features.sock"

    @property
    def redis_control_url(self) -> str:
        """Address of the control Redis."""
        return f"redis://127.0.0.1:{self.ports['redis-control']}/0"

    @property
    def stream_url(self) -> str:
        """Address of the stream Redis."""
        return f"redis://127.0.0.1:{self.ports['redis-stream']}/0"

    @property
    def mlflow_uri(self) -> str:
        """Address of the MLflow server."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def issuer_url(self) -> str:
        """Address of the development token issuer."""
        return f"http://127.0.0.1:{self.ports['issuer']}"

    @property
    def ray_address(self) -> str:
        """Address of Ray's control service."""
        return f"127.0.0.1:{self.ports['ray-gcs']}"

    @property
    def http_port(self) -> int:
        """Port Serve answers on."""
        return self.ports["http"]

    @property
    def grpc_port(self) -> int:
        """Port Serve answers gRPC on."""
        return self.ports["grpc"]


def state_path(home: Path) -> Path:
    """Return where the state of `home` lies."""
    return home / STATE_FILE


def read_state(home: Path) -> PlatformState | None:
    """Return the state, None if nothing was started; CorruptState says how to recover, nothing is deleted."""
    path = state_path(home)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        state = msgspec.json.decode(content, type=PlatformState)
    except msgspec.DecodeError as error:
        raise CorruptState(f"{path} cannot be read: {error}", hint=_recovery(path)) from None
    if state.format != FORMAT:
        raise CorruptState(
            f"{path} has format {state.format}, this version reads {FORMAT}",
            hint="run `headway down` with the version that started the platform",
        )
    if Path(state.home) != home.resolve():
        raise CorruptState(f"{path} belongs to {state.home}, the folder was copied or moved", hint=_recovery(path))
    missing = sorted(set(PORT_NAMES) - set(state.ports))
    if missing:
        raise CorruptState(f"{path} lacks ports: {', '.join(missing)}", hint=_recovery(path))
    return state


def write_state(state: PlatformState) -> None:
    """Replace the state file in one step, so that a kill leaves the old or the new one."""
    path = state_path(Path(state.home))
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state)))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


PORT_NAMES = (
    "redis-features",
    "redis-control",
    "redis-stream",
    "mlflow",
    "issuer",
    "http",
    "grpc",
    "ray-gcs",
    "ray-client",
    "ray-node-manager",
    "ray-object-manager",
    "ray-dashboard",
    "ray-agent-http",
    "ray-agent-grpc",
    "ray-runtime-env",
    "ray-metrics",
    "serve-fallback-http",
    "serve-fallback-grpc",
    "haproxy-stats",
    "haproxy-metrics",
    "block",
)
"""Ports of a platform; `block` is the first of BLOCK_SIZE ports for Ray workers and the replicas' own listeners."""
BLOCK_WORKERS = 200
BLOCK_REPLICAS = 50
BLOCK_SIZE = BLOCK_WORKERS + 2 * BLOCK_REPLICAS


def resolve(settings: Settings) -> Settings:
    """Fill empty addresses: files under `home` always, services from the state of a started platform.

    `oidc_issuers`, `signing_key` and `trust_root` stay as they are: empty means the development ones under `home`.
    """
    filled: dict[str, Any] = {
        "catalog_uri": settings.catalog_uri or f"sqlite:///{settings.home / 'lake' / 'catalog.db'}",
        "warehouse": settings.warehouse or f"file://{settings.home / 'lake' / 'warehouse'}",
        "mlflow_database": settings.mlflow_database or f"sqlite:///{settings.home / 'mlflow' / 'mlflow.db'}",
    }
    state = read_state(settings.home)
    if state is not None:
        filled |= {
            "redis_features_url": settings.redis_features_url or state.redis_features_url,
            "redis_control_url": settings.redis_control_url or state.redis_control_url,
            "stream_url": settings.stream_url or state.stream_url,
            "mlflow_uri": settings.mlflow_uri or state.mlflow_uri,
            "http_port": state.http_port,
            "grpc_port": state.grpc_port,
        }
    return settings.model_copy(update=filled)


def resolved_settings(**flags: object) -> Settings:
    """Return settings with empty addresses filled in; service addresses stay empty while nothing was started."""
    return resolve(load_settings(**flags))


def running_settings(**flags: object) -> Settings:
    """Return settings whose service addresses are all known; ServiceFailed says to start the platform."""
    settings = resolved_settings(**flags)
    names = ("redis_features_url", "redis_control_url", "mlflow_uri")
    missing = [name for name in names if not getattr(settings, name)]
    if missing:
        raise ServiceFailed(f"the platform of {settings.home} is not up: no {', '.join(missing)}", hint="headway up")
    return settings


def _recovery(path: Path) -> str:
    return (
        f"look for processes with `headway doctor`, stop them with `headway down --force`, which sets {path.name} aside"
    )
