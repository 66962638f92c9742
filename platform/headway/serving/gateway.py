"""Bare ASGI before a DecisionService: headers, a bounded body, one response. No framework stands on the hot path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from headway.core.errors import HeadwayError, Malformed, TooLarge
from headway.serving.errors import error_response
from headway.serving.hook import Receive, Scope, Send
from headway.serving.http import Request, Response
from headway.serving.service import DecisionService

BODY_LIMIT = 1 << 20
"""Bytes of one request; more is refused before it is read."""
_JSON = (b"content-type", b"application/json")
_LONGEST_ID = 128


class Gateway:
    """The ASGI application of one use case; runs its service's background work between lifespan start and stop."""

    def __init__(
        self,
        service: DecisionService,
        *,
        on_start: Callable[[], Awaitable[None]] | None = None,
        on_stop: Callable[[], Awaitable[None]] | None = None,
        echo_request_id: bool = True,
    ) -> None:
        self._service = service
        self._on_start = on_start
        self._on_stop = on_stop
        self._echo = echo_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1003})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        request_id = _clean(given) if given else self._service.request_id()
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]
        close = False
        try:
            body = await _body(headers, receive) if scope["method"] != "GET" else b""
            if body is None:
                return
            response = await self._service.respond(
                Request(
                    method=scope["method"],
                    path=path,
                    body=body,
                    token=_token(headers.get(b"authorization")),
                    request_id=request_id,
                    idempotency_key=_key(headers.get(b"idempotency-key")),
                    binary_header=b"inference-header-content-length" in headers,
                )
            )
        except HeadwayError as error:
            close = isinstance(error, TooLarge)  # the rest of the body is still on its way
            response = error_response(error, request_id)
        await _send(send, response, request_id if self._echo else None, close=close)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if self._on_start is not None:
                    await self._on_start()
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._on_stop is not None:
                    await self._on_stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
    """Return the body; None if the caller went away. Raises TooLarge at the first byte above the limit."""
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding != b"identity":
        raise Malformed("compressed bodies are not accepted", field="content-encoding", hint="send plain JSON")
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or int(length) > BODY_LIMIT):
        raise _too_large()
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    first: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(first) > BODY_LIMIT:
            raise _too_large()
        return first
    parts, size = [first], len(first)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


async def _send(send: Send, response: Response, request_id: str | None, *, close: bool) -> None:
    headers: list[tuple[bytes, bytes]] = [
        _JSON,
        (b"content-length", str(len(response.body)).encode()),
        *response.headers,
    ]
    if request_id is not None:
        headers.append((b"x-request-id", request_id.encode()))
    if close:
        headers.append((b"connection", b"close"))
    start: dict[str, Any] = {"type": "http.response.start", "status": response.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body})


def _token(header: bytes | None) -> str | None:
    if header is None or header[:7].lower() != b"bearer ":
        return None
    return header[7:].strip().decode("latin-1")


def _key(header: bytes | None) -> str | None:
    if header is None:
        return None
    if not 0 < len(header) <= _LONGEST_ID or not header.isascii():
        raise Malformed(f"not 1 to {_LONGEST_ID} ASCII characters", field="idempotency-key")
    return header.decode()


def _clean(header: bytes) -> str:
    """Return a caller's request id as printable ASCII of bounded length: it is echoed and logged."""
    return "".join(char for char in header[:_LONGEST_ID].decode("latin-1") if "!" <= char <= "~") or "unnamed"


def _too_large() -> TooLarge:
    return TooLarge(f"more than {BODY_LIMIT} bytes", field="body", hint="split the request, or use headway score")
