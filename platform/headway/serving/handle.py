"""Calls a use case's replica through a Ray handle, with the token in the call: the same checks as HTTP, no proxy."""

from __future__ import annotations

from typing import Any

from headway.core.errors import NotFound, ServiceFailed, Unavailable


class HandleTransport:
    """A transport of `headway.client.Client`: one handle call per request, so put many rows in one."""

    def __init__(self, use_case: str, *, timeout_s: float = 10.0) -> None:
        from ray import serve
        from ray.exceptions import RayError

        self._timeout_s = timeout_s
        self._faults = (TimeoutError, RayError, serve.exceptions.RayServeException)
        try:
            self._handle: Any = serve.get_app_handle(use_case)
            # the throughput settings put the router on the caller's event loop; a plain caller has none
            if not self._handle.is_initialized:
                self._handle._init(_run_router_in_separate_loop=True)
        except serve.exceptions.RayServeException as error:
            known = sorted(serve.status().applications)
            if use_case not in known:
                raise NotFound("application", use_case, known=known) from error
            raise ServiceFailed(f"Serve does not answer: {error}", hint="headway status") from error

    def send(self, method: str, path: str, body: bytes, *, token: str, key: str | None = None) -> tuple[int, bytes]:
        """Return status and body; Unavailable if no replica answers in time."""
        try:
            answer = self._handle.respond.remote(method, path, body, token=token, idempotency_key=key)
            status, content = answer.result(timeout_s=self._timeout_s)
        except self._faults as error:
            raise Unavailable(
                f"no replica answered: {type(error).__name__}", retry_after_s=1.0, hint="headway status"
            ) from error
        return int(status), bytes(content)

    def close(self) -> None:
        """Nothing is held open."""
