"""Serve applications: rolled out one by one, beside the others, and waited for."""

from __future__ import annotations

import time
from typing import Any

from headway.cluster.compose import Installation
from headway.core.errors import ServiceFailed
from headway.core.platform_state import read_state

_READY_S = 90.0
_POLL_S = 0.2


def base_url(at: Installation) -> str:
    """Return where Serve answers."""
    state = read_state(at.settings.home)
    port = at.settings.http_port if state is None else state.http_port
    return f"http://{at.settings.http_host}:{port}"


def run_application(name: str, target: Any, prefix: str) -> None:
    """Roll one application out, beside the others, and wait until all of its replicas are the new ones and healthy.

    Raises ServiceFailed where they do not become so in time; the old ones still serve.
    """
    from ray import serve

    try:
        serve.run(target, name=name, route_prefix=prefix, blocking=False)
    except RuntimeError as error:  # what Serve raises when a replica's constructor does
        raise _not_ready(name, serve.status().applications[name]) from error
    deadline = time.monotonic() + _READY_S
    while True:
        app = serve.status().applications[name]
        deployments = app.deployments.values()
        settled = all(item.status == "HEALTHY" and set(item.replica_states) == {"RUNNING"} for item in deployments)
        if app.status == "RUNNING" and settled:
            return
        if app.status == "DEPLOY_FAILED" or time.monotonic() > deadline:
            raise _not_ready(name, app)
        time.sleep(_POLL_S)


def _not_ready(name: str, app: Any) -> ServiceFailed:
    """Return the error of an application that did not settle: its state, and the last words of its replicas."""
    said = [item.message.strip().splitlines()[-1] for item in app.deployments.values() if item.message.strip()]
    return ServiceFailed(
        f"{name} did not become ready: {'; '.join(said) or app.message or app.status}"[:2_000],
        hint="replicas that served before still do; see the replica logs: headway status",
    )
