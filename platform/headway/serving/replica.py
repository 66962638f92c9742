"""A Serve replica of any service: a gateway on the loop that serves, reached by HTTP and by Ray handles alike."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from typing import Any, Protocol

from ray import serve

from headway.core.ids import uuid7
from headway.serving import hook, wire
from headway.serving.gateway import Gateway, Service, clean_id, key_of, require_size
from headway.serving.grpc import ingress
from headway.serving.grpc.servicer import InferenceServicer
from headway.serving.http import Request
from headway.serving.observer import NO_HEADERS

OPTIONS: dict[str, Any] = {
    "max_surge_percent": 100,
    "max_ongoing_requests": 2_000,
    "graceful_shutdown_timeout_s": 30.0,
    "graceful_shutdown_wait_loop_s": 0.2,
    "health_check_period_s": 1.0,
    "health_check_timeout_s": 10.0,
    "ray_actor_options": {"num_cpus": 0.2},
    "logging_config": {"enable_access_log": False},
}
"""Deployment options; the Serve configuration may override them. Admission bounds the work, not Serve's queue. Without
surge a rolling update of one replica would stop the old one before the new one serves."""


class Parts(Protocol):
    """What a replica runs (`headway.serving.assembly.Assembly`)."""

    @property
    def service(self) -> Service:
        """What answers."""
        ...

    @property
    def gateway(self) -> Gateway:
        """The service behind bare ASGI."""
        ...

    @property
    def inference(self) -> InferenceServicer | None:
        """What answers gRPC; None where the service takes no inference."""
        ...

    async def start(self) -> None:
        """Start the background work."""
        ...

    async def stop(self) -> None:
        """Finish what was accepted."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it could answer now."""
        ...

    def require_alive(self) -> None:
        """Raise when the background work died."""
        ...


class Replica(ingress.InferenceMethods):
    """One replica of a service at a route prefix; a deployment derives from it and says which."""

    def __init__(self, prefix: str, parts: Parts, *, lanes: wire.Service | None = None) -> None:
        self._prefix = prefix
        self._lanes = lanes
        self._application = _application(default=prefix.removeprefix("/"))
        self._assembly = parts

    def _servicer(self) -> InferenceServicer | None:
        return self._assembly.inference

    def __serve_build_asgi_app__(self) -> Any:
        """Return the gateway; Serve runs its lifespan on the loop that serves."""
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
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> tuple[int, bytes]:
        """Answer a Ray handle call with the same code and bounds as HTTP: without a token it is refused alike."""
        service = self._assembly.service
        observer = service.observer
        arrived = observer.arrived()
        path, _, query = path.partition("?")
        trace = observer.trace(_context(traceparent, tracestate))
        request_id = clean_id(request_id) if request_id else service.request_id()
        try:
            caller = service.caller(method, path, token)
            require_size(body)
            request = Request(
                method=method,
                path=path,
                body=body,
                token=token,
                request_id=request_id,
                idempotency_key=None
                if idempotency_key is None
                else key_of(idempotency_key.encode(errors="surrogatepass")),
                trace=trace,
                query=query,
            )
            response = await service.respond(request, caller)
        except Exception as error:
            response = service.failed(error, request_id, path)
        observer.left("handle", method, path, response.status, arrived, request_id=request_id, trace=trace)
        return response.status, response.body

    async def check_health(self) -> None:
        """Raise when a background task died: Serve replaces the replica."""
        self._assembly.require_alive()

    async def _start(self) -> None:
        _settle_memory()
        await self._assembly.start()
        hook.register(
            self._prefix, self._assembly.gateway, asyncio.get_running_loop(), ready=lambda: self._assembly.ready
        )
        if self._lanes is not None:
            wire.open_lanes(self._prefix, self._lanes, asyncio.get_running_loop())
        if self._assembly.inference is not None:
            ingress.register(self._application, self._assembly.inference, asyncio.get_running_loop())

    async def _stop(self) -> None:
        wire.close_lanes(self._prefix)
        hook.unregister(self._prefix)
        ingress.unregister(self._application)
        await self._assembly.stop()


def _context(traceparent: str | None, tracestate: str | None) -> Mapping[bytes, bytes]:
    """Return a call's trace context as headers."""
    if traceparent is None:
        return NO_HEADERS
    headers = {b"traceparent": traceparent.encode()}
    return headers if tracestate is None else {**headers, b"tracestate": tracestate.encode()}


def _settle_memory() -> None:
    """Take everything loaded so far out of the garbage collector's rounds: a full one over it costs milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


def _application(*, default: str) -> str:
    """Return the name under which Serve runs this replica's application."""
    try:
        return str(serve.get_replica_context().app_name)
    except serve.exceptions.RayServeException:
        return default


def replica_name(application: str, now: int) -> str:
    """Return a name that no other replica has."""
    try:
        return str(serve.get_replica_context().replica_id.unique_id)
    except serve.exceptions.RayServeException:
        return f"{application}-{uuid7(now)[-12:]}"
