"""Callers of a served use case at a steady rate, and what each of them got: nobody waits for another's answer."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

NO_ANSWER = 0
SHED = (429, 503)


@dataclass(frozen=True, slots=True)
class Got:
    """What one caller got."""

    at: float
    """When it was sent, monotonic seconds."""
    seconds: float
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def degraded(self) -> bool:
        """Whether a decision of it says that something was away."""
        return self.status == 200 and any(one["degraded"] or one["arm"] != "champion" for one in self.decisions)

    @property
    def late(self) -> bool:
        """Whether the machine was too slow for the contract's deadline, and said so."""
        return (
            self.status == 503
            and b"the deadline passed" in self.body
            and "retry-after" in {name.lower() for name in self.headers}
        )

    @property
    def version(self) -> str:
        """The model version of a whole answer."""
        return str(json.loads(self.body)["model_version"])

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """The decisions of a whole answer; none where it was refused."""
        found: list[dict[str, Any]] = json.loads(self.body)["decisions"] if self.status == 200 else []
        return found


class Callers:
    """Send `bodies` in turn, `rate` a second, while the block is open; then wait for every answer."""

    def __init__(
        self,
        url: str,
        bodies: Sequence[bytes],
        token: str,
        *,
        rate: float,
        timeout_s: float = 20.0,
        keyed: bool = False,
    ) -> None:
        self._url, self._bodies, self._rate, self._timeout_s = url, bodies, rate, timeout_s
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._keyed = keyed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.got: list[Got] = []

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self._timeout_s + 10)
        assert not self._thread.is_alive(), "a request hangs"
        sys.stdout.write(f"{Counter((got.status, got.error or got.body[:120]) for got in self.failed)}\n")

    @property
    def failed(self) -> list[Got]:
        """Those who got no decision."""
        return [got for got in self.got if got.status != 200]

    @property
    def lost(self) -> list[Got]:
        """Those of them who were not merely late: what a small machine does that starts replicas meanwhile."""
        return [got for got in self.failed if not got.late]

    @property
    def degraded(self) -> int:
        """How many decisions were degraded."""
        return sum(got.degraded for got in self.got)

    def under_way(self, since: float, until: float) -> int:
        """Return how many requests were sent and not answered at some moment of an interval."""
        return sum(got.at <= until and got.at + got.seconds >= since for got in self.got)

    def whole_again(self, since: float) -> float:
        """Return the seconds from `since` to the first whole answer behind which no other failed or was degraded."""
        bad = [got.at for got in self.got if got.at >= since and (got.status != 200 or got.degraded)]
        after = [got.at + got.seconds for got in self.got if got.at > max(bad, default=since)]
        assert after, "answers did not become whole again"
        return max(0.0, min(after) - since) if bad else 0.0

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            under_way: set[asyncio.Task[None]] = set()
            due, number = time.monotonic(), 0
            while not self._stop.is_set():
                task = asyncio.create_task(self._ask(session, number))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                number += 1
                due += 1.0 / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*under_way)

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        headers = self._headers | ({"idempotency-key": f"{id(self)}-{number}"} if self._keyed else {})
        body = self._bodies[number % len(self._bodies)]
        at = time.monotonic()
        try:
            async with session.post(self._url, data=body, headers=headers) as answer:
                said = await answer.read()
                got = Got(at, time.monotonic() - at, answer.status, said, _lower(answer.headers))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            got = Got(at, time.monotonic() - at, NO_ANSWER, error=f"{type(error).__name__}: {error}")
        self.got.append(got)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {str(name).lower(): value for name, value in headers.items()}
