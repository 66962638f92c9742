"""The only place that starts Ray or Serve or connects to them, because both read their environment once.

Ray reads it when a process starts, Serve when it is imported, in the driver and in the detached controller: so the
environment is built here in one piece, given to the head node when it starts and set in drivers before they connect.
Names were taken from `ray.serve._private.constants` and `ray._private.ray_constants` of Ray 2.60.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from headway.core.errors import InvalidValue, ServiceFailed
from headway.core.platform_state import BLOCK_REPLICAS, BLOCK_WORKERS, PlatformState, read_state
from headway.core.settings import Settings

NAMESPACE = "headway"
HOOK = "headway.serving.hook:middlewares"
GRPC_SERVICER = "headway.serving.grpc.ingress:add_to_server"
GRPC_MESSAGE_BYTES = 1 << 20
"""Bytes of one gRPC message; more is refused before it is read."""
HOOK_SWITCH = "HEADWAY_SERVING_HOOK"
"""Set to 0 before `headway up`, requests take Serve's own way through the replica: slower, the same answers."""
BACKGROUND_NICENESS = 10
"""Niceness of processes that no request waits for."""
NICENESS = "HEADWAY_BACKGROUND_NICENESS"
"""Another one, set before `headway up`: 0 where nothing competes with them, or all have to go on."""
OBJECT_STORE_BYTES = 1 << 30
"""Bound of shared memory; more spills to the session folder."""
LOGICAL_CPUS = 4
"""At least this many, whatever the machine has: replicas and coordinators ask for fractions."""
HAPROXY_SCRIPT = "haproxy"
"""In the session folder: what Serve starts as HAProxy (`headway.core.haproxy`)."""
PROXY_CHECK_S = "2"
"""A HAProxy that died is started again after three checks in a row; Serve's own period is ten seconds."""
TOKEN_FILE = "ray.token"  # noqa: S105 - the name of a file


def token_path(home: Path) -> Path:
    """Return the file of the cluster's token: whoever reads it can run code in the cluster, so it is 0600."""
    return home / "keys" / TOKEN_FILE


def logical_cpus() -> int:
    """Return the logical CPUs the head node declares."""
    return max(LOGICAL_CPUS, os.cpu_count() or 1)


def session_env(settings: Settings, state: PlatformState) -> dict[str, str]:
    """Return what the head node, and every process it starts, must find in its environment."""
    replicas_http = state.ports["block"] + BLOCK_WORKERS
    replicas_grpc = replicas_http + BLOCK_REPLICAS
    # HAProxy appends /<56 hex digits>/admin.sock.<pid>.tmp, and a unix socket's path ends at 107 bytes
    haproxy = Path(state.ray_temp)
    python_path = [str(settings.project), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return driver_env(settings, state) | {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy / HAPROXY_SCRIPT),
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": PROXY_CHECK_S,
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(state.ports["haproxy-stats"]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(state.ports["haproxy-metrics"]),
        # one datagram per request to nobody: the access log, and the one a Python actor parses for metrics
        "RAY_SERVE_HAPROXY_LOG_TARGET": "/dev/null",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(state.ports["serve-fallback-http"]),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(state.ports["serve-fallback-grpc"]),
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(GRPC_MESSAGE_BYTES),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replicas_http),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replicas_grpc - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(replicas_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(replicas_grpc + BLOCK_REPLICAS - 1),
        # one machine: HAProxy sees a change within a second, so a replaced replica need not linger for thirty
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        # `down` means now: no application on another node could take over while this one drains
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # replicas answer their routes in a middleware before Serve's request wrapper (headway.serving.hook)
        **({} if os.environ.get(HOOK_SWITCH) == "0" else {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": HOOK}),
        "RAY_worker_niceness": "0",
        # beyond three times this number of workers Ray warns on the driver's stdout, where results are printed
        "RAY_worker_maximum_startup_concurrency": "8",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(python_path)),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
    }


def driver_env(settings: Settings, state: PlatformState) -> dict[str, str]:
    """Return what a process that connects needs; `headway status --shell` prints it for `serve run` and `ray`."""
    return {
        "HEADWAY_HOME": str(settings.home),
        "HEADWAY_PROJECT": str(settings.project),
        "RAY_ADDRESS": state.ray_address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path(settings.home)),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    }


def prepare(settings: Settings) -> None:
    """Make this process's environment the platform's, so that a later `ray.init()` finds the cluster and its token.

    Does nothing where Ray is connected already, or where the platform of `settings.home` is not up.
    """
    import ray

    state = read_state(settings.home)
    if ray.is_initialized() or state is None:
        return
    os.environ.update(driver_env(settings, state))
    # Ray's native side read its environment when it was imported; this is how Ray itself turns authentication on late
    ray._raylet.Config.initialize("")


def connect(settings: Settings, runtime_env: dict[str, Any] | None = None) -> None:
    """Connect this process to the platform's cluster; does nothing in a process that already is.

    `runtime_env` is that of all workers of the job which this process becomes.

    Raises ServiceFailed when the platform is not up, or when the process is connected to another cluster.
    """
    import ray

    state = read_state(settings.home)
    if ray.is_initialized():
        address = ray.get_runtime_context().gcs_address
        # Ray names the node by its own address, the state by loopback: the port tells them apart
        if state is not None and address.rsplit(":", 1)[-1] != str(state.ports["ray-gcs"]) and not _in_worker():
            raise ServiceFailed(
                f"this process is connected to the cluster at {address}, not to the one of {settings.home}",
                hint="call ray.shutdown() first",
            )
        return
    if state is None:
        raise ServiceFailed(f"the platform of {settings.home} is not up", hint="headway up")
    prepare(settings)
    _quieten()
    try:
        ray.init(
            address=state.ray_address,
            namespace=NAMESPACE,
            runtime_env=runtime_env,
            log_to_driver=False,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError) as error:
        raise ServiceFailed(
            f"Ray at {state.ray_address} does not answer: {error}", hint="headway up repairs it, headway status tells"
        ) from error


def connect_anywhere(*, object_store_bytes: int) -> None:
    """Connect a process that has no platform, as a Feast plug-in may: to RAY_ADDRESS, or to a small Ray of its own.

    A connected process stays where it is.
    """
    import ray

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", include_dashboard=False, object_store_memory=object_store_bytes, log_to_driver=False)


def run_in_background() -> None:
    """Let this process yield to those that answer requests; for actors that commit, drain, watch or train."""
    given = os.environ.get(NICENESS, str(BACKGROUND_NICENESS))
    if not given.isdecimal():
        raise InvalidValue(NICENESS, f"{given!r} is no niceness", hint="a whole number from 0 to 19")
    os.nice(max(0, int(given) - os.nice(0)))  # a worker that is used again does not sink further


def grpc_options(port: int) -> dict[str, Any]:
    """Return Serve's gRPC options; reflection is off, one more way in that asks for no token."""
    return {"port": port, "grpc_servicer_functions": [GRPC_SERVICER], "enable_reflection": False}


def start_serve(settings: Settings) -> None:
    """Start Serve behind HAProxy on the platform's own host and ports, HTTP and gRPC; idempotent.

    `serve.run` alone would start it on Serve's defaults, all interfaces and port 8000, without gRPC.
    """
    connect(settings)
    state = read_state(settings.home)
    if state is None:
        raise ServiceFailed(f"the platform of {settings.home} is not up", hint="headway up")
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": settings.http_host, "port": state.http_port},
        grpc_options=grpc_options(state.grpc_port),
        logging_config={"enable_access_log": False},
    )


def _quieten() -> None:
    """Keep Ray's own progress and its warnings about its own code off the terminal; its logs keep both."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\.")


def _in_worker() -> bool:
    """Tell a Ray worker, whose cluster nobody chose, from a driver."""
    import ray

    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)
