"""Chooses the ports of a platform: each its default if free, else the next free one.

A user's platforms on one machine agree through a folder of reservations under a lock, because two of them starting at
once would both find 8000 free. A reservation holds as long as its platform's state file does, so both are written under
that lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headway.core.errors import ServiceFailed
from headway.core.platform_state import BLOCK_SIZE, PORT_NAMES, state_path

DEFAULTS = {
    "redis-features": 6390,
    "redis-control": 6391,
    "redis-stream": 6392,
    "mlflow": 5000,
    "issuer": 8090,
    "http": 8000,
    "grpc": 9000,
    "ray-gcs": 6385,
    "ray-client": 10001,
    "ray-node-manager": 10010,
    "ray-object-manager": 10011,
    "ray-dashboard": 8265,
    "ray-agent-http": 10012,
    "ray-agent-grpc": 10013,
    "ray-runtime-env": 10014,
    "ray-metrics": 8080,
    "serve-fallback-http": 8500,
    "serve-fallback-grpc": 9500,
    "haproxy-stats": 8404,
    "haproxy-metrics": 9101,
    "block": 20_000,
}
"""Wanted ports, all below the range from which the kernel gives out ephemeral ones."""
_EPHEMERAL = 32_768
_TRIES = 500


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What one platform claimed."""

    home: str
    ports: dict[str, int]


def runtime_folder() -> Path:
    """Return the user's folder for sockets and reservations, short because a socket's path ends at 107 bytes.

    Raises ServiceFailed if somebody else made it: it is in a shared place, so ownership is checked.
    """
    base = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # noqa: S108 - checked below
    folder = base / f"hw-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or folder.is_symlink() or status.st_mode & 0o077:
        raise ServiceFailed(f"{folder} is not a private folder of this user", hint="remove it or have it removed")
    return folder


def home_key(home: Path) -> str:
    """Return the short name of a home: it marks its processes and names its runtime folder."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:8]


def ray_temp(home: Path) -> Path:
    """Return the short folder of a home's Ray session."""
    return runtime_folder() / home_key(home)


@contextmanager
def reserved(home: Path, wanted: dict[str, int]) -> Iterator[dict[str, int]]:
    """Choose and claim all ports of a home; `wanted` overrides defaults. ServiceFailed when none is free.

    The body writes the home's state file, under the lock: without one the next platform that starts would take this
    reservation for a leftover.
    """
    with _locked():
        others = [item for item in _reservations() if item.home != str(home)]
        taken = {port for item in others for name, port in item.ports.items() if name != "block"}
        blocks = {item.ports["block"] for item in others if "block" in item.ports}
        ports: dict[str, int] = {}
        for name in PORT_NAMES:
            start = wanted.get(name, DEFAULTS[name])
            if name == "block":
                ports[name] = _block(start, blocks)
            else:
                ports[name] = _next_free(name, start, taken | set(ports.values()))
        _reservation_path(home).write_bytes(msgspec.json.encode(Reservation(home=str(home), ports=ports)))
        yield ports


def release(home: Path, *, keep_logs: bool = False) -> None:
    """Give the ports and the runtime folder back; a failed start keeps the folder, which holds Ray's logs."""
    with _locked():
        _reservation_path(home).unlink(missing_ok=True)
        folder = ray_temp(home)
        if folder.is_dir() and not keep_logs:
            shutil.rmtree(folder)


def is_free(port: int) -> bool:
    """Tell whether nobody listens on the port, on any address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - a probe: a listener on any address is in the way
        except OSError:
            return False
    return True


def busy(ports: Iterable[int]) -> list[int]:
    """Return the ports somebody listens on."""
    return [port for port in ports if not is_free(port)]


def _next_free(name: str, start: int, taken: set[int]) -> int:
    for port in range(start, min(start + _TRIES, 65_536)):
        if port not in taken and is_free(port):
            return port
    raise ServiceFailed(f"no free port for {name} from {start} on", hint="free some ports or set another start")


def _block(start: int, taken: set[int]) -> int:
    for block in range(start, _EPHEMERAL - BLOCK_SIZE, BLOCK_SIZE):
        overlaps = any(abs(block - other) < BLOCK_SIZE for other in taken)
        if not overlaps and all(is_free(port) for port in range(block, block + BLOCK_SIZE)):
            return block
    raise ServiceFailed(f"no {BLOCK_SIZE} free ports in a row from {start} on", hint="stop a platform: headway down")


def _reservation_path(home: Path) -> Path:
    return runtime_folder() / f"{home_key(home)}.json"


def _reservations() -> Iterator[Reservation]:
    for path in sorted(runtime_folder().glob("*.json")):
        try:
            item = msgspec.json.decode(path.read_bytes(), type=Reservation)
        except msgspec.DecodeError:  # a torn write of a killed process: ports are probed as well
            continue
        if state_path(Path(item.home)).exists():
            yield item
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _locked() -> Iterator[None]:
    with (runtime_folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
