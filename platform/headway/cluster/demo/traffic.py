"""Open-loop traffic: requests leave on schedule whether or not earlier ones came back, so that waiting is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from headway.core.errors import Unavailable

_TIMEOUT_S = 10.0
_REFUSALS = (429, 503)
"""Quota and shedding: with Retry-After they ask for the same request later."""


@dataclass
class TrafficResult:
    """What came back, in order of the requests."""

    latencies_ms: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    """Decoded bodies; None where the request failed."""
    errors: list[str] = field(default_factory=list)
    """One line per failed request: status or exception."""
    refused: int = 0
    """Answers that asked for the request again later, and got it."""

    def extend(self, other: TrafficResult) -> None:
        """Append another stretch of traffic."""
        self.latencies_ms.extend(other.latencies_ms)
        self.answers.extend(other.answers)
        self.errors.extend(other.errors)
        self.refused += other.refused


class TrafficClient:
    """Keep-alive connections to one endpoint, with a token that is renewed before it expires."""

    def __init__(self, url: str, token: Callable[[], str], *, connections: int = 32) -> None:
        self._url = url
        self._token = token
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._refused = 0

    async def __aenter__(self) -> TrafficClient:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        assert self._session is not None
        await self._session.close()

    async def post(self, path: str, body: Any) -> Any:
        """Post one body and return the decoded answer; Unavailable if it is not a success."""
        headers = {"authorization": f"Bearer {self._token()}"}
        status, raw = await self._send(path, msgspec.json.encode(body), headers, time.perf_counter())
        if status != 200:
            raise Unavailable(f"{path} answered {status}: {raw[:200].decode(errors='replace')}", retry_after_s=1.0)
        return msgspec.json.decode(raw)

    async def replay(self, path: str, bodies: Sequence[Any], rate: float) -> TrafficResult:
        """Post `bodies` at `rate` per second; latency counts from the scheduled time of each request.

        A request that is refused for quota or load is repeated when the refusal says, and its latency goes on.
        """
        encoded = [msgspec.json.encode(body) for body in bodies]
        headers = {"authorization": f"Bearer {self._token()}"}
        latencies = [0.0] * len(encoded)
        answers: list[Any] = [None] * len(encoded)
        errors: list[str] = []
        start, before = time.perf_counter(), self._refused

        async def one(index: int, due: float) -> None:
            try:
                status, raw = await self._send(path, encoded[index], headers, due)
                if status == 200:
                    answers[index] = raw
                else:
                    errors.append(f"{status} {raw[:200].decode(errors='replace')}")
            except (TimeoutError, aiohttp.ClientError) as error:
                errors.append(f"{type(error).__name__} {error}")
            latencies[index] = (time.perf_counter() - due) * 1e3

        tasks = []
        for index in range(len(encoded)):
            due = start + index / rate
            delay = due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            tasks.append(asyncio.create_task(one(index, due)))
        await asyncio.gather(*tasks)
        decoded = [None if raw is None else msgspec.json.decode(raw) for raw in answers]
        refused = self._refused - before
        return TrafficResult(latencies_ms=latencies, answers=decoded, errors=errors, refused=refused)

    async def _send(self, path: str, body: bytes, headers: dict[str, str], due: float) -> tuple[int, bytes]:
        """Return the answer; what a refusal asks for later is sent again, for as long as a caller would wait."""
        assert self._session is not None
        headers = {**headers, "content-type": "application/json"}
        while True:
            async with self._session.post(self._url + path, data=body, headers=headers) as response:
                status, raw, after = response.status, await response.read(), response.headers.get("retry-after")
            if status not in _REFUSALS or after is None or time.perf_counter() + float(after) > due + _TIMEOUT_S:
                return status, raw
            self._refused += 1
            await asyncio.sleep(float(after))


def send(url: str, token: str, path: str, bodies: Sequence[Any], rate: float) -> TrafficResult:
    """Replay in a process of its own: the rest of the demo must not delay the clock that requests are timed by."""

    async def replay() -> TrafficResult:
        async with TrafficClient(url, lambda: token) as client:
            return await client.replay(path, bodies, rate)

    return asyncio.run(replay())
