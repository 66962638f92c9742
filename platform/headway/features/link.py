"""One asyncio connection to a Redis-protocol server: requests are packed by hand, replies parsed by hiredis.

Replies come in the order of requests, so that many callers share the connection and each call costs one write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from headway.core.errors import Unavailable


def request(parts: Sequence[bytes]) -> bytes:
    """Return a command in the RESP protocol."""
    packed = [b"*%d\r\n" % len(parts)]
    packed.extend(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"".join(packed)


class _Wire(asyncio.Protocol):
    def __init__(self, timeout_s: float) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timeout_s = timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            future, _ = self._waiting.popleft()
            if future.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(Unavailable(f"the online store refused: {reply}", retry_after_s=1.0))
            else:
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(away(exc or ConnectionError("connection closed")))

    def send(self, data: bytes) -> asyncio.Future[Any]:
        """Send a packed request; the future fails with Unavailable."""
        if self.transport is None:
            raise away(ConnectionError("connection closed"))
        loop = self._loop
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((future, loop.time()))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._watch)
        self.transport.write(data)
        return future

    def _watch(self) -> None:
        """Look whether the oldest request is late, and when to look again: one timer for all requests."""
        self._timer = None
        if not self._waiting:
            return
        future, sent = self._waiting[0]
        due = sent + self._timeout_s
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._watch)
            return
        if not future.done():
            future.set_exception(away(TimeoutError(f"no answer in {self._timeout_s} s")))
        if self.transport is not None:
            self.transport.abort()  # whatever else waits there is late as well


class RedisLink:
    """A lazily opened, self-repairing connection; use it from one event loop."""

    def __init__(self, url: str, *, timeout_s: float = 0.5) -> None:
        self._url = urlsplit(url)
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None
        self._opening: asyncio.Task[_Wire] | None = None

    def call(self, data: bytes) -> Awaitable[Any]:
        """Send a packed request and return its reply; Unavailable when the server is away or too slow."""
        wire = self._wire
        if wire is None or wire.transport is None:
            return self._first_call(data)
        return wire.send(data)

    async def close(self) -> None:
        """Close the connection."""
        wire, self._wire = self._wire, None
        if wire is not None and wire.transport is not None:
            wire.transport.close()
            await asyncio.sleep(0)

    async def _first_call(self, data: bytes) -> Any:
        try:
            wire = await self._connect()
        except OSError as error:
            raise away(error) from error
        return await wire.send(data)

    async def _connect(self) -> _Wire:
        """Open the connection once, however many callers wait for it."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> _Wire:
        loop = asyncio.get_running_loop()
        url = self._url

        def made() -> _Wire:
            return _Wire(self._timeout_s)

        async with asyncio.timeout(self._timeout_s):
            if url.scheme == "unix":
                _, wire = await loop.create_unix_connection(made, url.path)
            else:
                _, wire = await loop.create_connection(made, url.hostname or "127.0.0.1", url.port or 6379)
            if url.password:
                parts = [b"AUTH", unquote(url.username or "default").encode(), unquote(url.password).encode()]
                await wire.send(request(parts))
            database = url.path.strip("/") if url.scheme != "unix" else ""
            if database:
                await wire.send(request([b"SELECT", database.encode()]))
        self._wire = wire
        return wire


def away(error: BaseException) -> Unavailable:
    """Return the error for an online store that does not answer."""
    return Unavailable(f"the online store cannot be reached: {error}", retry_after_s=1.0, hint="headway status")
