"""The gate before the whole MLflow application: who asks, for which route, with how many bytes; writes are audited.

MLflow's own plug-ins see only its Flask routes, and its permissions start at "everybody reads". This is ASGI middleware
around everything that the server answers, native routes included, and it starts at "nobody". A write is recorded before
MLflow sees it and with its outcome before the caller does: what cannot be recorded is not done.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from headway.core.clock import Clock
from headway.core.errors import (
    CapacityError,
    Forbidden,
    HeadwayError,
    Malformed,
    TooLarge,
    Unauthenticated,
)
from headway.core.ids import uuid7
from headway.core.times import MINUTE
from headway.core.types import Principal
from headway.governance.audit_event import AuditSink
from headway.governance.mlflow_routes import Route, find, plain_path, routes
from headway.governance.roles import CI, READER

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_STATUS: tuple[tuple[type[HeadwayError], int, str], ...] = (
    (Unauthenticated, 401, "UNAUTHENTICATED"),
    (Forbidden, 403, "PERMISSION_DENIED"),
    (TooLarge, 413, "INVALID_PARAMETER_VALUE"),
    (Malformed, 400, "BAD_REQUEST"),
    (CapacityError, 503, "TEMPORARILY_UNAVAILABLE"),
)
"""Kind, HTTP status, MLflow's code, which its clients turn into an exception of theirs."""
_OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")
_NAMED = ("name", "version", "alias", "key", "run_id", "experiment_id", "model_id", "source")
"""Fields of a body that say what a write is about."""
_STRANGERS_A_MINUTE = 60
"""Refusals of callers without an identity that are recorded one by one; the rest are counted."""
_LONGEST = 200


class MlflowGate:
    """Lets through what `mlflow_routes` lists, for identities that have the route's role."""

    def __init__(self, app: Application, *, verify: Callable[[str], Principal], audit: AuditSink, clock: Clock) -> None:
        self._app = app
        self._verify = verify
        self._audit = audit
        self._clock = clock
        self._routes = routes()
        self._strangers = _Strangers(clock)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        caller: Principal | None = None
        path = plain_path(scope["path"], scope.get("raw_path") or b"", scope.get("root_path", ""))
        route = None if path is None else find(self._routes, scope["method"], path)
        try:
            if route is not None and route.right == "open":
                await self._app(_without_identity(scope), receive, send)
                return
            token, basic = _token(scope["headers"])
            caller = await asyncio.to_thread(self._verify, token)
            route = self._admit(scope, route, caller, basic=basic)
            _check_length(scope["headers"], route.max_body)
            body = None if route.streamed else await _read(receive, route.max_body)
        except HeadwayError as error:
            await self._refuse(scope, caller, error, send)
            return
        if route.right == "read":
            await self._app(_without_identity(scope), _replayed(body or b"", receive), send)
        else:
            await self._write(scope, route, caller, body, receive, send)

    def _admit(self, scope: MutableMapping[str, Any], route: Route | None, caller: Principal, *, basic: bool) -> Route:
        """Return the route if this caller may take it."""
        if any(name in _OVERRIDES for name, _ in scope["headers"]):
            raise Forbidden("a request may not override its method", hint="send the method itself")
        if route is None:
            raise Forbidden(
                "this route of MLflow is not served here", hint="docs/registry.md lists what is; headway models changes"
            )
        (READER if route.right == "read" else CI).require(caller)
        if basic and route.right == "write":
            raise Forbidden("a browser's identity only reads", hint="send the token as a bearer token")
        return route

    async def _write(
        self,
        scope: MutableMapping[str, Any],
        route: Route,
        caller: Principal,
        body: bytes | None,
        receive: Receive,
        send: Send,
    ) -> None:
        """Record, do, record, answer."""
        what = _resource(scope["path"], body)
        try:
            await self._record(caller, route.name, what, "intended")
        except HeadwayError as error:
            await _answer(error, self._request_id(), send)
            return
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        stream = _Bounded(receive, route.max_body)
        try:
            await self._app(_without_identity(scope), stream if body is None else _replayed(body, receive), keep)
        except BaseException as error:
            if not stream.too_large:
                await self._record(caller, route.name, what, f"failed: {type(error).__name__}")
                raise
        status = int(answer[0]["status"]) if answer else 500
        refusal: HeadwayError | None = None
        if stream.too_large:
            refusal = TooLarge(f"the body is larger than {route.max_body} bytes")
        outcome = "done" if status < 400 else f"failed: status {status}"
        try:
            await self._record(caller, route.name, what, "failed: too large" if refusal else outcome)
        except HeadwayError as error:
            refusal = error
        if refusal is not None:
            await _answer(refusal, self._request_id(), send)
            return
        for message in answer:
            await send(message)

    async def _refuse(
        self, scope: MutableMapping[str, Any], caller: Principal | None, error: HeadwayError, send: Send
    ) -> None:
        """Record a refusal, then answer it; also where the record fails, since nothing was done."""
        asked = f"{scope['method']} {scope['path']}"
        try:
            if caller is not None:
                await self._record(caller, "request", f"mlflow:{asked}", f"denied: {error.message}")
            elif (unrecorded := self._strangers.admit()) is not None:
                more = f" ({unrecorded} more were not recorded)" if unrecorded else ""
                await self._record(None, "request", f"mlflow:{asked}", f"denied: {error.message}{more}")
        except HeadwayError as unwritten:
            error = unwritten
        await _answer(error, self._request_id(), send)

    async def _record(self, caller: Principal | None, action: str, resource: str, outcome: str) -> None:
        def append() -> None:
            self._audit.append(
                actor=caller.sub if caller else "unknown",
                kind=caller.kind if caller else "unknown",
                action=f"mlflow.{action}",
                resource=_printable(resource, 4 * _LONGEST),
                purpose=caller.purpose if caller else "unknown",
                outcome=_printable(outcome, 2 * _LONGEST),
            )

        await asyncio.to_thread(append)

    def _request_id(self) -> str:
        return uuid7(self._clock.now())


class _Strangers:
    """Bounds how many refusals of unknown callers are written: a flood must not fill the disk of the audit log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minute = -1
        self._recorded = 0
        self._unrecorded = 0

    def admit(self) -> int | None:
        """Return how many were left out since the last recorded one, or None to leave this one out too."""
        minute = self._clock.now() // MINUTE
        if minute != self._minute:
            self._minute, self._recorded = minute, 0
        if self._recorded >= _STRANGERS_A_MINUTE:
            self._unrecorded += 1
            return None
        self._recorded += 1
        left_out, self._unrecorded = self._unrecorded, 0
        return left_out


def _token(headers: list[tuple[bytes, bytes]]) -> tuple[str, bool]:
    """Return the caller's token and whether it came as the password of a browser."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) != 1:
        raise Unauthenticated("send one token", hint="MLFLOW_TRACKING_TOKEN=$(headway token ...)")
    kind, _, rest = given[0].partition(b" ")
    if kind.lower() == b"bearer":
        return rest.strip().decode("latin-1"), False
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2].decode("latin-1"), True
        except (binascii.Error, ValueError):
            pass
    raise Unauthenticated("send a bearer token, or in a browser the token as the password")


def _without_identity(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return the request without its token and cookies: MLflow has no use for them, its logs would keep them."""
    kept = [(name, value) for name, value in scope["headers"] if name not in (b"authorization", b"cookie")]
    return {**scope, "headers": kept}


def _check_length(headers: list[tuple[bytes, bytes]], limit: int) -> None:
    """Refuse a body that says that it is too large before any of it is read."""
    for name, value in headers:
        if name == b"content-length" and not (value.isdigit() and int(value) <= limit):
            raise TooLarge(f"the body is larger than {limit} bytes")


async def _read(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Malformed("the body ended early")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise TooLarge(f"the body is larger than {limit} bytes")
        more = message.get("more_body", False)
    return b"".join(chunks)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a stream of the body that was read, and after it what the server says: that the caller has gone."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


class _Bounded:
    """The stream of a body that ends as if the caller had gone once it is too large, whatever length was announced."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self.too_large = False

    async def __call__(self) -> Message:
        """Return the next message."""
        message = {"type": "http.disconnect"} if self.too_large else await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.too_large = True
            return {"type": "http.disconnect"}
        return message


def _resource(path: str, body: bytes | None) -> str:
    """Return what a write is about: its path, and the names in its body."""
    try:
        fields = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        fields = {}
    if not isinstance(fields, dict):
        fields = {}
    named = [f"{key}={str(fields[key])[:_LONGEST]}" for key in _NAMED if key in fields]
    return " ".join([f"mlflow:{path}", *named])


def _printable(text: str, longest: int) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:longest]


async def _answer(error: HeadwayError, request_id: str, send: Send) -> None:
    """Send the error: our body, and beside it the two fields that MLflow's client shows."""
    status, code = next(
        ((status, code) for kind, status, code in _STATUS if isinstance(error, kind)), (503, "TEMPORARILY_UNAVAILABLE")
    )
    body = json.dumps(
        {"error": str(error), "code": error.code, "request_id": request_id, "error_code": code, "message": str(error)}
    ).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="headway", Basic realm="headway: token as password"'))
    if status in (413, 400):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
