"""One asyncio connection to a Redis-protocol server: requests are packed by hand, replies parsed by hiredis.

Replies come in the order of requests, so that many callers share the connection and each call costs one write. An
address means what it means to redis-py, which the rest of the platform connects with.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis

from headway.core.errors import DefinitionError, Unavailable

_PORT = 6379
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"})
_TLS_CHECKS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


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
        self.lost = asyncio.Event()

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
        self.lost.set()
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


@dataclass(frozen=True, kw_only=True)
class _Address:
    """Where a server is, and how to enter."""

    path: str | None
    """Of a unix socket; None: TCP."""
    host: str
    port: int
    tls: ssl.SSLContext | None
    greeting: tuple[tuple[bytes, ...], ...] = field(repr=False)
    """Commands before the first request; holds the password."""


def _address(url: str) -> _Address:
    """Return what an address says, as redis-py reads it; a DefinitionError says nothing of its password."""
    from redis.connection import parse_url  # slow to import, and a replica reads no other part of it here

    try:
        given = parse_url(url)
    except ValueError:  # its text may hold a part of the password
        raise DefinitionError(
            "not the address of a Redis server",
            field="redis_features_url",
            expected="redis://…, rediss://… or unix://…, with `db` a number",
        ) from None
    try:
        tls = _tls(given) if url.startswith("rediss://") else None
    except (ValueError, OSError) as error:
        raise DefinitionError(f"TLS options: {error}", field="redis_features_url") from error
    greeting: list[tuple[bytes, ...]] = []
    if given.get("username") or given.get("password"):
        name, password = given.get("username") or "default", given.get("password") or ""
        greeting.append((b"AUTH", name.encode(), password.encode()))
    if given.get("db"):
        greeting.append((b"SELECT", b"%d" % given["db"]))
    return _Address(
        path=given.get("path", "") if url.startswith("unix://") else None,
        host=given.get("host") or "127.0.0.1",
        port=given.get("port") or _PORT,
        tls=tls,
        greeting=tuple(greeting),
    )


def _tls(given: Mapping[str, Any]) -> ssl.SSLContext:
    """Return how certificates are checked: against the machine's authorities or the one named, host names too."""
    unknown = sorted(name for name in given if name.startswith("ssl_") and name not in _TLS_OPTIONS)
    if unknown:
        raise ValueError(f"{unknown[0]} is not known; known: {', '.join(sorted(_TLS_OPTIONS))}")
    checks = str(given.get("ssl_cert_reqs", "required"))
    if checks not in _TLS_CHECKS:
        raise ValueError(f"ssl_cert_reqs={checks} is not known; known: {', '.join(_TLS_CHECKS)}")
    context = ssl.create_default_context(cafile=given.get("ssl_ca_certs"))
    context.check_hostname = given.get("ssl_check_hostname", True) and checks != "none"
    context.verify_mode = _TLS_CHECKS[checks]
    if "ssl_certfile" in given:
        context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"))
    return context


class RedisLink:
    """A lazily opened, self-repairing connection; use it from one event loop."""

    def __init__(self, url: str, *, timeout_s: float = 0.5) -> None:
        self._address = _address(url)
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
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):  # TLS says goodbye first
                    await wire.lost.wait()

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
        at = self._address

        def made() -> _Wire:
            return _Wire(self._timeout_s)

        async with asyncio.timeout(self._timeout_s):
            if at.path is not None:
                _, wire = await loop.create_unix_connection(made, at.path)
            else:
                _, wire = await loop.create_connection(made, at.host, at.port, ssl=at.tls)
            try:
                for parts in at.greeting:
                    await wire.send(request(parts))
            except BaseException:  # refused, late or cancelled: nobody else would close it
                if wire.transport is not None:
                    wire.transport.abort()
                raise
        self._wire = wire
        return wire


def away(error: BaseException) -> Unavailable:
    """Return the error for an online store that does not answer."""
    return Unavailable(f"the online store cannot be reached: {error}", retry_after_s=1.0, hint="headway status")
