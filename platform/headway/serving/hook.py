"""The way past Serve's request wrapper: a middleware of the replica's own HTTP server answers our routes itself.

Serve wraps each request in metrics, tracing, cancellation and bookkeeping that cost more than a decision. Under direct
ingress its HTTP server runs the middlewares named by `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`; set to
`headway.serving.hook:middlewares`, requests below a route prefix that this process serves go straight to the gateway.
Without the switch the same gateway is called by Serve, only slower. Health and routes (`/-/…`) always pass on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

IMPORT_PATH = "headway.serving.hook:middlewares"
CONNECTION = "headway.serving.wire:LaneProtocol"
SWITCH = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = "/-/healthz"
"""What HAProxy asks of a replica; Serve answers by the actor's own health, which knows nothing of readiness."""
_READY: dict[str, Callable[[], bool]] = {}
_APPS: dict[str, tuple[AsgiApp, asyncio.AbstractEventLoop]] = {}
"""Route prefix → gateway of this process. The middleware is built by Serve without arguments, so the deployment and it
can only meet in the process; filled once by the deployment's constructor, emptied when it stops."""


def register(
    prefix: str, app: AsgiApp, loop: asyncio.AbstractEventLoop, *, ready: Callable[[], bool] | None = None
) -> None:
    """Let requests below `prefix`, of one or two parts, go to `app` while they arrive on its own loop.

    While `ready` says no, the ingress sends them to other replicas, if there are any that are.
    """
    _APPS[prefix] = (app, loop)
    if ready is not None:
        _READY[prefix] = ready


def unregister(prefix: str) -> None:
    """Stop that."""
    _APPS.pop(prefix, None)
    _READY.pop(prefix, None)


def enabled() -> bool:
    """Whether this process was started with the hook."""
    return os.environ.get(SWITCH) == IMPORT_PATH


class HotPath:
    """Pure ASGI: the table first, Serve's own path otherwise."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] == "http" and _APPS:
            path: str = scope["path"]
            end = path.find("/", 1)
            prefix = path if end < 0 else path[:end]
            found = _APPS.get(prefix)
            if found is None and end > 0:  # a prefix of two parts, such as /v1/events
                end = path.find("/", end + 1)
                prefix = path if end < 0 else path[:end]
                found = _APPS.get(prefix)
            if found is not None and found[1] is asyncio.get_running_loop():
                scope["root_path"] = prefix
                await found[0](scope, receive, send)
                return
            if path == HEALTH and not all(ready() for ready in _READY.values()):
                await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"9")]})
                await send({"type": "http.response.body", "body": b"NOT READY"})
                return
        await self._app(scope, receive, send)


def middlewares() -> list[Any]:
    """Return what Serve installs, and let the server that it makes next speak through our connections."""
    import uvicorn.config
    from starlette.middleware import Middleware

    uvicorn.config.HTTP_PROTOCOLS["auto"] = CONNECTION
    return [Middleware(HotPath)]
