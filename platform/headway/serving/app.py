"""The Ray Serve application of a use case: one deployment whose replica is an Assembly behind bare ASGI.

Contract and model are verified in the constructor, so a replica that may not serve never becomes healthy, however it
was started: by `headway deploy`, `serve run` or KubeRay.
"""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

from ray import serve

from headway.core import ray_session
from headway.core.ids import uuid7
from headway.core.settings import load_settings
from headway.serving import hook
from headway.serving.http import Request

OPTIONS: dict[str, Any] = {
    "num_replicas": 1,
    "max_ongoing_requests": 2_000,
    "graceful_shutdown_timeout_s": 30.0,
    "graceful_shutdown_wait_loop_s": 0.2,
    "health_check_period_s": 5.0,
    "health_check_timeout_s": 10.0,
    "ray_actor_options": {"num_cpus": 0.2},
    "logging_config": {"enable_access_log": False},
}
"""Deployment options; the Serve configuration may override them. Admission bounds the work, not Serve's queue."""


@serve.ingress()
class UseCaseReplica:
    """One replica."""

    def __init__(self, use_case: str) -> None:
        from headway.core.clock import SystemClock
        from headway.core.platform_state import resolved_settings
        from headway.serving.assembly import assemble

        settings = resolved_settings()
        replica = _replica_name(use_case, SystemClock().now())
        self._use_case = use_case
        self._assembly = assemble(use_case, settings, replica=replica)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the gateway; Serve runs its lifespan on the loop that serves."""
        from headway.serving.gateway import Gateway

        # Serve's own middleware echoes the request id on this way in
        return Gateway(self._assembly.service, on_start=self._start, on_stop=self._stop, echo_request_id=False)

    async def respond(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        token: str | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
    ) -> tuple[int, bytes]:
        """Answer a Ray handle call with the same code as HTTP: without a token it is refused alike."""
        service = self._assembly.service
        response = await service.respond(
            Request(
                method=method,
                path=path,
                body=body,
                token=token,
                request_id=request_id or service.request_id(),
                idempotency_key=idempotency_key,
            )
        )
        return response.status, response.body

    async def check_health(self) -> None:
        """Raise when a background task died: Serve replaces the replica."""
        self._assembly.require_alive()

    async def _start(self) -> None:
        _settle_memory()
        await self._assembly.start()
        hook.register(f"/{self._use_case}", self._assembly.gateway, asyncio.get_running_loop())

    async def _stop(self) -> None:
        hook.unregister(f"/{self._use_case}")
        await self._assembly.stop()


def _settle_memory() -> None:
    """Take everything loaded so far out of the garbage collector's rounds: a full one over it costs milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


def _replica_name(use_case: str, now: int) -> str:
    try:
        return str(serve.get_replica_context().replica_id.unique_id)
    except serve.exceptions.RayServeException:
        return f"{use_case}-{uuid7(now)[-12:]}"


def build(use_case: str, **options: Any) -> Any:
    """Return the application; nothing is loaded before a replica starts.

    In a shell of its own (`serve run serve_apps.fraud:app`) the process first learns where the platform is.
    """
    if "RAY_ADDRESS" not in os.environ:
        ray_session.prepare(load_settings())
    return serve.deployment(name="decide", **OPTIONS | options)(UseCaseReplica).bind(use_case)
