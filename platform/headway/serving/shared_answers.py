"""Idempotency across the replicas of a use case: who claims a key first decides, the others get that answer.

Only requests with a key pay: one round trip before the decision and one after it. A claim lasts half a second and is
renewed while its decision takes longer; so one whose replica died is free soon enough for the retry of the proxy that
lost the connection, which then decides. While the store is away the keys are each
replica's own (`headway.serving.idempotency`): an answer is worth more than the promise.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from headway.core.clock import Clock
from headway.core.errors import Conflict, Unavailable
from headway.features.link import RedisLink, request
from headway.serving.breaker import Breaker, State
from headway.serving.http import Response
from headway.serving.limiter import Gcra

_LOG = logging.getLogger(__name__)
_KEEP_S = 600.0
_KEPT_BYTES = 32 << 20
"""Of answers that a replica may add in ten minutes, and as much again at once: the store has features to hold."""
_CLAIM_S = 0.5
_RENEW_S = 0.15
"""How long a claim lasts, and how often those of longer decisions are renewed."""
_FIRST_LOOK_S, _LAST_LOOK_S = 0.005, 0.05
_CLAIM, _ANSWER = b"c", b"a"
_DIGEST = 16
_SETTLE = b"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end " + (
    b"redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1"
)
_RENEW = b"if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
_RELEASE = b"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])"


class AnswerStore(Protocol):
    """Values by key; every method raises Unavailable."""

    async def claim(self, key: bytes, value: bytes, life_s: float) -> bytes | None:
        """Store the value if the key has none, and return None; else return the one it has."""
        ...

    async def settle(self, key: bytes, claim: bytes, value: bytes, life_s: float) -> None:
        """Replace the claim by the value, if it still stands."""
        ...

    async def renew(self, key: bytes, claim: bytes, life_s: float) -> None:
        """Let the claim last from now on, if it still stands."""
        ...

    async def release(self, key: bytes, claim: bytes) -> None:
        """Remove the claim, if it still stands."""
        ...


class RedisAnswerStore:
    """On a Redis-protocol server."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def claim(self, key: bytes, value: bytes, life_s: float) -> bytes | None:
        """Store the value if the key has none."""
        found: bytes | None = await self._send(b"SET", key, value, b"NX", b"GET", b"PX", _ms(life_s))
        return found

    async def settle(self, key: bytes, claim: bytes, value: bytes, life_s: float) -> None:
        """Replace the claim by the value."""
        await self._send(b"EVAL", _SETTLE, b"1", key, claim, value, _ms(life_s))

    async def renew(self, key: bytes, claim: bytes, life_s: float) -> None:
        """Let the claim last."""
        await self._send(b"EVAL", _RENEW, b"1", key, claim, _ms(life_s))

    async def release(self, key: bytes, claim: bytes) -> None:
        """Remove the claim."""
        await self._send(b"EVAL", _RELEASE, b"1", key, claim)

    def _send(self, *parts: bytes) -> Awaitable[Any]:
        return self._link.call(request(parts))


class MemoryAnswerStore:
    """The replicas of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: dict[bytes, tuple[bytes, float]] = {}

    async def claim(self, key: bytes, value: bytes, life_s: float) -> bytes | None:
        """Store the value if the key has none."""
        now = self._clock.monotonic()
        found = self._values.get(key)
        if found is not None and found[1] > now:
            return found[0]
        self._values[key] = (value, now + life_s)
        return None

    async def settle(self, key: bytes, claim: bytes, value: bytes, life_s: float) -> None:
        """Replace the claim by the value."""
        now = self._clock.monotonic()
        found = self._values.get(key)
        if found is not None and found[0] == claim and found[1] > now:
            self._values[key] = (value, now + life_s)

    async def renew(self, key: bytes, claim: bytes, life_s: float) -> None:
        """Let the claim last."""
        await self.settle(key, claim, claim, life_s)

    async def release(self, key: bytes, claim: bytes) -> None:
        """Remove the claim."""
        found = self._values.get(key)
        if found is not None and found[0] == claim:
            del self._values[key]


class Claim:
    """The right to decide on a key; ends with `keep` or `release`, neither of which raises."""

    def __init__(self, answers: SharedAnswers, key: bytes, value: bytes) -> None:
        self._answers = answers
        self._key = key
        self._value = value

    async def keep(self, response: Response) -> None:
        """Let other replicas have the answer."""
        await self._answers.keep(self._key, self._value, response)

    def release(self) -> None:
        """Let another request decide; does not wait."""
        self._answers.release(self._key, self._value)


class SharedAnswers:
    """One replica's view of the answers of all."""

    def __init__(self, use_case: str, store: AnswerStore, clock: Clock, *, patience_s: float) -> None:
        self.breaker = Breaker(clock, name="idempotency")
        self._prefix = f"headway:answers:{use_case}:".encode()
        self._store = store
        self._clock = clock
        self._patience_s = patience_s
        self._room = Gcra(rate=_KEPT_BYTES / _KEEP_S, burst=_KEPT_BYTES)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Response)
        self._releasing: set[asyncio.Task[None]] = set()
        self._held: dict[bytes, bytes] = {}
        """Claims of decisions under way."""
        self._renewing: asyncio.Task[None] | None = None

    async def claim(self, sub: str, key: str, body: bytes) -> Claim | Response | None:
        """Return the right to decide, or the first answer; None while the store is away.

        Raises Conflict when the key came with another body, Unavailable when another replica is still deciding.
        """
        name = self._prefix + hashlib.blake2b(f"{sub}\0{key}".encode(), digest_size=16).hexdigest().encode()
        digest = hashlib.blake2b(body, digest_size=_DIGEST).digest()
        value = _CLAIM + digest + os.urandom(16)
        end, look_s = self._clock.monotonic() + max(self._patience_s, _CLAIM_S + 2 * _LAST_LOOK_S), _FIRST_LOOK_S
        while self.breaker.acquire():
            try:
                found = await self._store.claim(name, value, _CLAIM_S)
            except Unavailable as error:
                self._failed(error)
                return None
            self.breaker.succeeded()
            if found is None:
                self._hold(name, value)
                return Claim(self, name, value)
            if found[1 : 1 + _DIGEST] != digest:
                raise Conflict(
                    "this idempotency key came with another body",
                    field="idempotency-key",
                    hint="use a new key for a new request",
                )
            if found[:1] == _ANSWER:
                return self._decoder.decode(found[1 + _DIGEST :])
            if self._clock.monotonic() >= end:
                raise Unavailable("the first request with this key is still being decided", retry_after_s=_CLAIM_S)
            await asyncio.sleep(look_s)
            look_s = min(2 * look_s, _LAST_LOOK_S)
        return None

    async def keep(self, key: bytes, claim: bytes, response: Response) -> None:
        """Store the answer in place of the claim; where there is no room for it, this replica alone remembers it."""
        self._held.pop(key, None)
        value = _ANSWER + claim[1 : 1 + _DIGEST] + self._encoder.encode(response)
        if self._room.take("", len(value), self._clock.monotonic()):
            self.release(key, claim)
            return
        try:
            await self._store.settle(key, claim, value, _KEEP_S)
        except Unavailable as error:
            self._failed(error)

    def release(self, key: bytes, claim: bytes) -> None:
        """Remove the claim, in the background."""
        self._held.pop(key, None)
        task = asyncio.get_running_loop().create_task(self._release(key, claim))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    def _hold(self, key: bytes, claim: bytes) -> None:
        self._held[key] = claim
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        """Renew the claims that are as old as a round, for as long as there are claims."""
        try:
            before: dict[bytes, bytes] = {}
            while self._held:
                old = [(key, claim) for key, claim in self._held.items() if before.get(key) == claim]
                before = dict(self._held)
                if old and self.breaker.state is State.CLOSED:
                    with suppress(Unavailable):  # whoever claims next finds out
                        await asyncio.gather(*(self._store.renew(key, claim, _CLAIM_S) for key, claim in old))
                await asyncio.sleep(_RENEW_S)
        finally:
            self._renewing = None

    async def _release(self, key: bytes, claim: bytes) -> None:
        try:
            await self._store.release(key, claim)
        except Unavailable as error:
            self._failed(error)

    def _failed(self, error: Unavailable) -> None:
        self.breaker.failed()
        _LOG.warning("idempotency keys are this replica's own for now: %s", error)


def _ms(seconds: float) -> bytes:
    return b"%d" % max(1, round(seconds * 1e3))
