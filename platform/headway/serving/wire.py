"""uvicorn's HTTP connection with a short way: a whole request in, one write out, no task and no ASGI between.

For each request uvicorn makes a task, a scope, an event and two writes, each of which wakes the receiver; together they
cost more than a decision. A request of a lane that came whole is answered from the batch that decided it. Whatever is
unusual (a key, a part of the body still on its way, a pipelined request, an encoding) takes uvicorn's own way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headway.serving.gateway import bearer, clean_id
from headway.serving.http import Response
from headway.serving.observer import Observer

_UNUSUAL = frozenset(
    {
        b"expect", b"upgrade", b"content-encoding", b"transfer-encoding", b"idempotency-key",
        b"inference-header-content-length",
    }
)  # fmt: skip
"""Headers of requests that take the long way."""


class Service(Protocol):
    """What answers (`headway.serving.service.DecisionService`)."""

    observer: Observer

    @property
    def lanes(self) -> tuple[str, ...]:
        """Paths of POST requests that `begin` takes."""
        ...

    def begin(self, path: str, token: str | None, body: bytes, exchange: Exchange) -> bool:
        """Begin to answer; False: the request needs the long way."""
        ...

    def failed(self, error: Exception, request_id: str, path: str) -> Response:
        """Return the answer to a failed request."""
        ...

    def request_id(self) -> str:
        """Return a fresh request id."""
        ...


@dataclass(frozen=True, slots=True)
class Lane:
    """One path of one service."""

    service: Service
    path: str
    """Below the route prefix."""
    loop: asyncio.AbstractEventLoop


LANES: dict[bytes, Lane] = {}
"""Request target → lane of this process; uvicorn makes the connections, so the two can only meet here."""


def open_lanes(prefix: str, service: Service, loop: asyncio.AbstractEventLoop) -> None:
    """Let requests for the service's lanes below `prefix` take the short way while they arrive on its loop."""
    LANES.update({f"{prefix}{path}".encode(): Lane(service, path, loop) for path in service.lanes})


def close_lanes(prefix: str) -> None:
    """Stop that."""
    for target in [target for target in LANES if target.startswith(prefix.encode() + b"/")]:
        del LANES[target]


class Exchange:
    """One request and its answer; to uvicorn it looks like a cycle of its own."""

    __slots__ = (
        "_arrived", "_lane", "_protocol", "body", "disconnected", "keep_alive", "message_event", "request_id",
        "response_complete", "token",
    )  # fmt: skip

    def __init__(self, protocol: LaneProtocol, lane: Lane, *, request_id: str, token: str | None) -> None:
        self._protocol = protocol
        self._lane = lane
        self._arrived = lane.service.observer.arrived()
        self.request_id = request_id
        self.token = token
        self.body = b""
        self.keep_alive = protocol.parser.should_keep_alive()
        self.disconnected = self.response_complete = False
        self.message_event = _NOBODY_WAITS

    @property
    def over(self) -> bool:
        """Whether the caller has gone, or has its answer."""
        return self.response_complete or self.disconnected

    def begin(self) -> bool:
        """Hand the whole request over; False: it needs the long way."""
        return self._lane.service.begin(self._lane.path, self.token, self.body, self)

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        self.send(self._lane.service.failed(error, self.request_id, self._lane.path))

    def send(self, response: Response) -> None:
        """Write head and body at once."""
        if self.over:
            return
        self.response_complete = True
        protocol = self._protocol
        extra = b"".join(b"%b: %b\r\n" % header for header in response.headers) if response.headers else b""
        protocol.transport.write(
            b"%b%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b%b\r\n%b"
            % (
                STATUS_LINE[response.status], protocol.common_headers(), response.content_type, len(response.body),
                self.request_id.encode(), extra, b"" if self.keep_alive else b"connection: close\r\n", response.body,
            )
        )  # fmt: skip
        self._lane.service.observer.left(
            "http", "POST", self._lane.path, response.status, self._arrived, request_id=self.request_id
        )
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class LaneProtocol(HttpToolsProtocol):  # type: ignore[misc]  # it comes without types
    """A connection; its attributes are uvicorn's."""

    cycle: Any
    """The request that is being answered, an `Exchange` or uvicorn's own; None before the first."""
    headers: list[tuple[bytes, bytes]]
    _held: Exchange | None = None
    """A request of a lane whose body is still being read."""
    _common: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    def on_message_begin(self) -> None:
        """Begin a request; the scope is made where one is needed."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        super().data_received(data)
        held = self._held
        if held is not None:
            self._held = None
            if not self.transport.is_closing():
                self._long_way(held.body)

    def on_headers_complete(self) -> None:
        """Choose the way."""
        lane = LANES.get(self.url)
        if lane is not None and lane.loop is self.loop:
            self._held = self._exchange(lane)
            if self._held is not None:
                return
        self._long_way(b"")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.body += body

    def on_message_complete(self) -> None:
        """Begin to answer."""
        held = self._held
        if held is None:
            super().on_message_complete()
            return
        self._held = None
        before = self.cycle
        self.cycle = held
        if not held.begin():
            self.cycle = before
            self._long_way(held.body)
            super().on_message_complete()

    def common_headers(self) -> bytes:
        """Return the headers that uvicorn adds to every response; it makes a new list of them every second."""
        headers = self.server_state.default_headers
        if headers is not self._common[0]:
            self._common = (headers, b"".join(b"%b: %b\r\n" % header for header in headers))
        return self._common[1]

    def _exchange(self, lane: Lane) -> Exchange | None:
        """Return the exchange of the request whose headers have been read, None where it needs the long way."""
        parser = self.parser
        if (self.cycle is not None and not self.cycle.response_complete) or parser.get_method() != b"POST":
            return None
        if parser.get_http_version() != "1.1" or parser.should_upgrade():
            return None
        if self.flow.write_paused:  # who does not read its answers is made to wait, which takes a task
            return None
        token = request_id = None
        for name, value in self.headers:
            if name in _UNUSUAL:
                return None
            if name == b"authorization":
                token = bearer(value)
            elif name == b"x-request-id":
                request_id = value
        named = clean_id(request_id.decode("latin-1")) if request_id else lane.service.request_id()
        return Exchange(self, lane, request_id=named, token=token)

    def _long_way(self, body: bytes) -> None:
        """Let uvicorn have the request as far as it came."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        if body:
            super().on_body(body)


class _Nobody:
    """The event of a cycle that no task waits for."""

    def set(self) -> None:
        """Wake nobody."""


_NOBODY_WAITS = _Nobody()
