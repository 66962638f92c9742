"""The same key and body within ten minutes get the first answer, and are counted, logged and scored once.

Keys are scoped per subject. This memory is the replica's own and is asked first; `headway.serving.shared_answers` knows
what other replicas answered.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from headway.core.clock import Clock
from headway.core.errors import Conflict
from headway.serving.http import Response

_KEEP_S = 600.0
_ENTRIES = 50_000


@dataclass(slots=True)
class _Entry:
    digest: bytes
    until: float
    answer: asyncio.Future[Response]


class Idempotency:
    """Answers by (subject, key)."""

    def __init__(self, clock: Clock, *, entries: int = _ENTRIES) -> None:
        self._clock = clock
        self._limit = entries
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self.replayed = 0
        """Calls that got the answer to an earlier one."""

    def claim(self, sub: str, key: str, body: bytes) -> asyncio.Future[Response] | None:
        """Return the future of the first answer, or None if the caller is first and must `settle`.

        Raises Conflict when the key came with another body.
        """
        now = self._clock.monotonic()
        digest = hashlib.blake2b(body, digest_size=16).digest()
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if oldest.until > now and len(self._entries) < self._limit:
                break
            self._entries.popitem(last=False)
        entry = self._entries.get((sub, key))
        if entry is not None:
            if entry.digest != digest:
                raise Conflict(
                    "this idempotency key came with another body",
                    field="idempotency-key",
                    hint="use a new key for a new request",
                )
            self.replayed += 1
            return entry.answer
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._entries[(sub, key)] = _Entry(digest=digest, until=now + _KEEP_S, answer=future)
        return None

    def settle(self, sub: str, key: str, response: Response | None) -> None:
        """Keep the first answer; None (it failed) frees the key, so that a retry is a first try again."""
        entry = self._entries.get((sub, key))
        if entry is None:
            return
        if response is None:
            del self._entries[(sub, key)]
            if not entry.answer.done():
                entry.answer.cancel()
        elif not entry.answer.done():
            entry.answer.set_result(response)
