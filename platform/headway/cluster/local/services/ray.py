"""The Ray head, and Serve on it behind HAProxy.

The head runs as `ray start --block`: it ends when one of its processes dies, so a dead head is seen. `ray stop` is
never used, since it ends every Ray of the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.cluster.local.ports import ray_temp, runtime_folder
from headway.cluster.local.process import python_command
from headway.cluster.local.service import LOOPBACK, Context, accepts, answers_http, private_secret
from headway.core.haproxy import write_script
from headway.core.platform_state import BLOCK_WORKERS
from headway.core.ray_session import HAPROXY_SCRIPT, OBJECT_STORE_BYTES, logical_cpus, session_env, token_path

_HEAD_PORTS = (
    "ray-gcs",
    "ray-client",
    "ray-node-manager",
    "ray-object-manager",
    "ray-dashboard",
    "ray-agent-http",
    "ray-agent-grpc",
    "ray-runtime-env",
    "ray-metrics",
)


@dataclass(frozen=True, kw_only=True)
class RayService:
    """A head node whose every port, socket and file belongs to one home."""

    name: str = "ray"
    title: str = "Ray"
    start_timeout_s: float = 240.0
    stop_grace_s: float = 10.0

    def ports(self) -> Sequence[str]:
        """Ports of the head's own processes."""
        return _HEAD_PORTS

    def prepare(self, context: Context) -> None:
        """Make the session folder, in it what Serve starts as HAProxy, and the cluster's token."""
        runtime_folder()
        folder = ray_temp(context.home)
        folder.mkdir(mode=0o700, exist_ok=True)
        write_script(folder / HAPROXY_SCRIPT)
        private_secret(token_path(context.home))

    def command(self, context: Context) -> Sequence[str]:
        """Start a head on loopback with all ports given."""
        port = context.port
        block = port("block")
        return (
            str(Path(sys.executable).parent / "ray"),
            *("start", "--head", "--block", "--disable-usage-stats"),
            *("--port", str(port("ray-gcs")), "--ray-client-server-port", str(port("ray-client"))),
            *("--node-manager-port", str(port("ray-node-manager"))),
            *("--object-manager-port", str(port("ray-object-manager"))),
            *("--min-worker-port", str(block), "--max-worker-port", str(block + BLOCK_WORKERS - 1)),
            *("--include-dashboard", "true", "--dashboard-host", LOOPBACK),
            *("--dashboard-port", str(port("ray-dashboard"))),
            *("--dashboard-agent-listen-port", str(port("ray-agent-http"))),
            *("--dashboard-agent-grpc-port", str(port("ray-agent-grpc"))),
            *("--runtime-env-agent-port", str(port("ray-runtime-env"))),
            *("--metrics-export-port", str(port("ray-metrics"))),
            *("--num-cpus", str(logical_cpus()), "--object-store-memory", str(OBJECT_STORE_BYTES)),
            *("--temp-dir", context.state.ray_temp),
        )

    def environment(self, context: Context) -> Mapping[str, str]:
        """Everything Ray and Serve read."""
        return session_env(context.settings, context.state)

    def healthy(self, context: Context) -> bool:
        """The control service and the node's manager listen."""
        return accepts(context.port("ray-gcs")) and accepts(context.port("ray-node-manager"))


@dataclass(frozen=True, kw_only=True)
class ServeIngress:
    """Serve's controller and HAProxy: not a process of ours but actors of Ray, started by a short helper."""

    start_timeout_s: float = 240.0

    def ports(self) -> Sequence[str]:
        """Ports of HAProxy and of the fallback proxy."""
        return ("http", "grpc", "serve-fallback-http", "haproxy-stats", "haproxy-metrics")

    def command(self, context: Context) -> Sequence[str]:
        """Run our starter."""
        return python_command("headway.cluster.local.servers.serve", str(context.home), str(context.settings.project))

    def environment(self, context: Context) -> Mapping[str, str]:
        """The same as the head's: Serve reads it in the driver too."""
        return session_env(context.settings, context.state)

    def healthy(self, context: Context) -> bool:
        """HAProxy answers, on both ports; with 503 while no application is deployed."""
        host = context.settings.http_host
        reachable = LOOPBACK if host in ("0.0.0.0", "") else host  # noqa: S104 - compared, not bound
        http = answers_http(context.port("http"), "/-/healthz", host=reachable, accept=(200, 503))
        return http and accepts(context.port("grpc"), host=reachable)
