"""Bare ASGI before a service: headers, a bounded body, one response. No framework stands on the hot path.

A body is read only from a caller whose token holds, and it must arrive whole in time: a replica's memory and its
patience belong to those who may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import suppress
from dataclasses import replace
from types import coroutine
from typing import Any, Protocol

from headway.core.errors import Malformed, TooLarge
from headway.core.types import Principal
from headway.serving.errors import error_response
from headway.serving.hook import Receive, Scope, Send
from headway.serving.http import Request, Response
from headway.serving.observer import Observer

BODY_LIMIT = 1 << 20
"""Bytes of one request; more is refused before it is read."""
BODY_S = 10.0
"""Longest time from the headers to the end of the body."""
_DISCARDED = 1 << 16
"""Bytes of an unread body that the server may discard to keep the connection."""
_LINGER_S = 1.0
_LINGERING = 8 * BODY_LIMIT
"""How long, and how much of an unread body, is discarded before a connection closes: a close over unread bytes resets
it, and the caller, or the proxy before us, may lose the answer that names the reason."""
Message = MutableMapping[str, Any]
_JSON_TYPE = b"application/json"
LONGEST_ID = 128
_DIGITS = 9


class Service(Protocol):
    """What answers (`headway.serving.service.DecisionService`)."""

    observer: Observer

    def caller(self, method: str, path: str, token: str | None) -> Principal | None:
        """Return who asks, None where the path takes no body; raises what refuses the caller."""
        ...

    async def respond(self, request: Request, caller: Principal | None = None) -> Response:
        """Answer one request; never raises but for cancellation."""
        ...

    def failed(self, error: Exception, request_id: str, path: str) -> Response:
        """Return the answer to a failed request."""
        ...

    def request_id(self) -> str:
        """Return a fresh request id."""
        ...


class Gateway:
    """The ASGI application of one service; runs its background work between lifespan start and stop."""

    def __init__(
        self,
        service: Service,
        *,
        on_start: Callable[[], Awaitable[None]] | None = None,
        on_stop: Callable[[], Awaitable[None]] | None = None,
        echo_request_id: bool = True,
    ) -> None:
        self._service = service
        self._observer = service.observer
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
        observer = self._observer
        arrived_at = observer.arrived()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        trace = observer.trace(headers)
        given = headers.get(b"x-request-id")
        request_id = clean_id(given.decode("latin-1")) if given else self._service.request_id()
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]
        method, token = scope["method"], bearer(headers.get(b"authorization"))
        body, unread, close, late = b"", True, False, False
        try:
            caller = self._service.caller(method, path, token)
            if caller is not None:
                arrived = await _body(headers, receive)
                if arrived is None:
                    return
                body, unread = arrived, False
            response = await self._service.respond(
                Request(
                    method=method,
                    path=path,
                    body=body,
                    token=token,
                    request_id=request_id,
                    idempotency_key=key_of(headers.get(b"idempotency-key")),
                    content_type=_content_type(headers.get(b"content-type")),
                    header_length=_header_length(headers.get(b"inference-header-content-length")),
                    trace=trace,
                    query=scope.get("query_string", b"").decode("latin-1"),
                ),
                caller,
            )
        except TimeoutError:
            response, close, late = _too_slow(request_id), True, True
        except Exception as error:
            response, close = self._service.failed(error, request_id, path), isinstance(error, TooLarge)
        # what is still on its way may be without end: only a connection's end stops it
        close = close or (unread and _is_long(headers))
        linger = close and not late
        if trace is not None:
            response = replace(response, headers=(*response.headers, (b"traceresponse", trace.context.header.encode())))
        await _send(send, response, request_id if self._echo else None, close=close, more=linger)
        observer.left("http", method, path, response.status, arrived_at, request_id=request_id, trace=trace)
        if linger:
            await _discard(receive)
            await send({"type": "http.response.body", "body": b""})

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
    """Return the body; None if the caller went away.

    Raises TooLarge at the first byte above the limit, TimeoutError after `BODY_S`. What the server holds already is
    taken without a timer: the first step of `receive` is taken by hand, and only one that has to wait gets one.
    """
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding != b"identity":
        raise Malformed("compressed bodies are not accepted", field="content-encoding", hint="send plain JSON")
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or int(length) > BODY_LIMIT):
        raise _too_large()
    reading = receive().__await__()
    try:
        awaited = next(reading)
    except StopIteration as arrived:
        message: Message = arrived.value
        if not message.get("more_body", False):
            return _whole(message)
    else:
        async with asyncio.timeout(BODY_S):
            message = await _rest(reading, awaited)
            return await _parts(message, receive)
    async with asyncio.timeout(BODY_S):
        return await _parts(message, receive)


def _whole(message: Message) -> bytes | None:
    """Return the body of a first message that is also the last."""
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message.get("body", b"")
    require_size(body)
    return body


async def _parts(message: Message, receive: Receive) -> bytes | None:
    """Return the body that begins with `message`."""
    parts, size = [], 0
    while True:
        part = _whole(message)
        if part is None:
            return None
        size += len(part)
        if size > BODY_LIMIT:
            raise _too_large()
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


@coroutine
def _rest(reading: Generator[Any, Any, Message], awaited: Any) -> Generator[Any, Any, Message]:
    """Wait for what the first step asked for, then take the other steps."""
    try:
        yield awaited
    except BaseException:  # cancelled, or out of time
        reading.close()
        raise
    return (yield from reading)


async def _send(send: Send, response: Response, request_id: str | None, *, close: bool, more: bool) -> None:
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", response.content_type),
        (b"content-length", str(len(response.body)).encode()),
        *response.headers,
    ]
    if request_id is not None:
        headers.append((b"x-request-id", request_id.encode()))
    if close:
        headers.append((b"connection", b"close"))
    start: dict[str, Any] = {"type": "http.response.start", "status": response.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body, "more_body": more})


async def _discard(receive: Receive) -> None:
    """Read what is still on its way, within bounds."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while size < _LINGERING:
                message = await receive()
                if not message.get("more_body", False):
                    return
                size += len(message.get("body", b""))


def bearer(header: bytes | None) -> str | None:
    """Return the token of an `authorization` header; None where it holds none."""
    if header is None or header[:7].lower() != b"bearer ":
        return None
    return header[7:].strip().decode("latin-1")


def key_of(header: bytes | None) -> str | None:
    """Return a caller's idempotency key; Malformed where it is not ASCII of bounded length."""
    if header is None:
        return None
    if not 0 < len(header) <= LONGEST_ID or not header.isascii():
        raise Malformed(f"not 1 to {LONGEST_ID} ASCII characters", field="idempotency-key")
    return header.decode()


def _content_type(header: bytes | None) -> str:
    """Return the media type without its parameters."""
    if header is None or header == _JSON_TYPE:
        return "application/json"
    return header.partition(b";")[0].strip().lower().decode("latin-1")


def _header_length(header: bytes | None) -> int | None:
    if header is None:
        return None
    if not header.isdigit() or len(header) > _DIGITS:
        raise Malformed("not a number of bytes", field="inference-header-content-length")
    return int(header)


def clean_id(given: str) -> str:
    """Return a caller's request id as printable ASCII of bounded length: it is echoed and logged."""
    return "".join(char for char in given[:LONGEST_ID] if "!" <= char <= "~") or "unnamed"


def _is_long(headers: dict[bytes, bytes]) -> bool:
    """Whether more of a body may follow than is worth discarding."""
    length = headers.get(b"content-length")
    if length is None:
        return b"transfer-encoding" in headers
    return not length.isdigit() or int(length) > _DISCARDED


def _too_slow(request_id: str) -> Response:
    error = Malformed(f"did not arrive whole within {BODY_S:.0f} s", field="body", hint="send it at once")
    return replace(error_response(error, request_id), status=408)


def require_size(body: bytes) -> None:
    """Raise TooLarge for a body above the limit."""
    if len(body) > BODY_LIMIT:
        raise _too_large()


def _too_large() -> TooLarge:
    return TooLarge(
        f"more than {BODY_LIMIT} bytes",
        field="body",
        hint="split the request; headway score and headway stream feed take any amount",
    )
