"""The port every embedded service implements: how to start it, and how to know that it answers."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headway.core.errors import CorruptState
from headway.core.platform_state import PlatformState
from headway.core.settings import Settings

LOOPBACK = "127.0.0.1"
_PROBE_S = 2.0
_SECRET = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a service may know of its platform."""

    settings: Settings
    state: PlatformState

    @property
    def home(self) -> Path:
        """Folder of the platform's state."""
        return self.settings.home

    def port(self, name: str) -> int:
        """Return a chosen port."""
        return self.state.ports[name]


class Service(Protocol):
    """One supervised process, with whatever it starts itself."""

    @property
    def name(self) -> str:
        """Key in the state file and name of the log."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...

    @property
    def start_timeout_s(self) -> float:
        """Starting takes longer than this only when something is wrong."""
        ...

    @property
    def stop_grace_s(self) -> float:
        """Time between asking and killing."""
        ...

    def ports(self) -> Sequence[str]:
        """Return the names of the ports it listens on."""
        ...

    def prepare(self, context: Context) -> None:
        """Make folders and files it needs; repeating changes nothing."""
        ...

    def command(self, context: Context) -> Sequence[str]:
        """Return program (absolute path) and arguments."""
        ...

    def environment(self, context: Context) -> Mapping[str, str]:
        """Return what to add to the environment."""
        ...

    def healthy(self, context: Context) -> bool:
        """Ask the service itself; answers within seconds and never raises for a service that is down."""
        ...


def answers_http(
    port: int, path: str, *, host: str = LOOPBACK, accept: tuple[int, ...] = (200,), timeout_s: float = _PROBE_S
) -> bool:
    """Tell whether an HTTP server answers with an accepted status."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status in accept
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def accepts(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether somebody listens."""
    try:
        with socket.create_connection((host, port), timeout=_PROBE_S):
            return True
    except OSError:
        return False


def private_secret(path: Path) -> str:
    """Return the secret in a 0600 file, made at the first call: 64 hex digits.

    The file gets its name only once it is whole and on disk, so that a kill leaves all of it or nothing. Raises
    CorruptState for a file that holds anything else: an empty secret would let everybody in.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _publish(path, secrets.token_hex(32))
    secret = path.read_text(errors="replace").strip()
    if not is_secret(secret):
        raise CorruptState(
            f"{path} does not hold a secret of 64 hex digits",
            hint="headway down, move the file away, headway up: a new one is made",
        )
    return secret


def is_secret(text: str) -> bool:
    """Tell whether a text is a secret as `private_secret` makes them."""
    return _SECRET.fullmatch(text) is not None


def _publish(path: Path, content: str) -> None:
    """Make the file in one step; where another process was first, its content stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
