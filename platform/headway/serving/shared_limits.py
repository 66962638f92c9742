"""Keeps the limiters of all replicas of a use case together, in the background: no request waits for it.

Every 50 ms a replica tells what it let through since the last time, of all clients at once, and learns how far each
client is ahead of its rate over all replicas. Between two exchanges it decides alone. So N replicas together let at
most N·burst + rate·t + 3·N·rate·T rows of a client through in any time t, T being the longest time between two answered
exchanges. What was let through too early is paid back: the long-run rate is the contract's. While the store is away,
each replica keeps to its share of the rate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headway.core.clock import Clock
from headway.core.errors import Unavailable
from headway.features.link import RedisLink, request
from headway.serving.breaker import Breaker, State
from headway.serving.limiter import Cell, Gcra

_LOG = logging.getLogger(__name__)
EVERY_S = 0.05
_HEARTBEAT_S = 1.0
_LIFE_S = 4.0
"""Seconds after which a replica that says nothing no longer counts."""
_CLIENTS_AT_ONCE = 1_000
_EXCHANGE = b"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local life = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if life > 0 then redis.call('ZADD', KEYS[1], now + life, ARGV[1]) else redis.call('ZREM', KEYS[1], ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], 60000)
local out = {redis.call('ZCARD', KEYS[1])}
for i = 2, #KEYS do
  local arrival = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now)
  local owed = tonumber(ARGV[i + 1])
  if owed > 0 then
    arrival = arrival + owed
    redis.call('SET', KEYS[i], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1)
  end
  out[i] = math.floor(arrival - now)
end
return out
"""
"""KEYS: replicas, then clients. ARGV: this replica, its life in µs, then what each client owes anew in µs. Returns how
many replicas live, then how many µs each client is ahead."""


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What an exchange answers."""

    replicas: int
    """Alive, this one included."""
    seconds: Sequence[float]
    """How far each client is ahead of its rate, over all replicas."""


class LimitStore(Protocol):
    """Where replicas meet."""

    async def exchange(self, clients: Sequence[str], owed_s: Sequence[float], *, leaving: bool = False) -> Ahead:
        """Add what each client owes anew; return what all owe. Raises Unavailable; what was added then is unknown."""
        ...


class RedisLimitStore:
    """On a Redis-protocol server, by one script; all keys of a use case are in one slot."""

    def __init__(self, link: RedisLink, use_case: str, replica: str) -> None:
        self._link = link
        self._prefix = f"{{headway:limits:{use_case}}}:".encode()
        self._replica = replica.encode()

    async def exchange(self, clients: Sequence[str], owed_s: Sequence[float], *, leaving: bool = False) -> Ahead:
        """Add what each client owes anew; return what all owe."""
        keys = [self._prefix + b"r", *(self._prefix + b"c:" + client.encode() for client in clients)]
        life = b"0" if leaving else b"%d" % (_LIFE_S * 1e6)
        owed = [b"%d" % round(seconds * 1e6) for seconds in owed_s]
        reply: Any = await self._link.call(
            request([b"EVAL", _EXCHANGE, b"%d" % len(keys), *keys, self._replica, life, *owed])
        )
        return Ahead(replicas=int(reply[0]), seconds=[ahead / 1e6 for ahead in reply[1:]])


class MemoryLimitStore:
    """The replicas of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals: dict[str, float] = {}
        self.replicas = 1

    async def exchange(self, clients: Sequence[str], owed_s: Sequence[float], *, leaving: bool = False) -> Ahead:  # noqa: ARG002  # nobody leaves a process
        """Add what each client owes anew; return what all owe."""
        now = self._clock.monotonic()
        for client, owed in zip(clients, owed_s, strict=True):
            self._arrivals[client] = max(self._arrivals.get(client, now), now) + owed
        return Ahead(replicas=self.replicas, seconds=[self._arrivals[client] - now for client in clients])


class SharedLimits:
    """One replica's part; lives on the loop of its limiters."""

    def __init__(
        self,
        limiters: Mapping[str, Gcra],
        store: LimitStore,
        clock: Clock,
        *,
        on_replicas: Callable[[int], None] | None = None,
    ) -> None:
        self.replicas = 1
        """Alive, as far as this one knows."""
        self.breaker = Breaker(clock, name="limits")
        self._limiters = limiters
        """By a prefix of their own: a client's decisions and outcomes have different rates."""
        self._store = store
        self._clock = clock
        self._on_replicas = on_replicas
        self._said_at = float("-inf")

    @property
    def alone(self) -> bool:
        """Whether this replica keeps to its share of the rates because nobody can be asked."""
        return self.breaker.state is not State.CLOSED

    async def run(self) -> None:
        """Exchange for ever."""
        while True:
            try:
                await self.exchange()
            except Exception as error:  # limits must not end with one odd reply
                _LOG.error("exchanging limits failed: %s", type(error).__name__, exc_info=error)
            await asyncio.sleep(EVERY_S)

    async def exchange(self) -> None:
        """Tell and learn once; without anything to tell or to learn, once a second."""
        now = self._clock.monotonic()
        cells = self._open(now)
        if not cells and now < self._said_at + _HEARTBEAT_S:
            return
        if not self.breaker.acquire():  # what is let through alone is paid alone
            for _, _, cell in cells:
                cell.unsent = 0
            return
        owed = []
        for limiter, _, cell in cells:
            owed.append(cell.unsent / limiter.rate)
            cell.unsent = 0
        try:
            ahead = await self._store.exchange([client for _, client, _ in cells], owed)
        except Unavailable as error:
            # nobody knows whether it was added; telling it again could charge it twice
            self.breaker.failed()
            if self.alone:
                self._keep_to(self.replicas)
                _LOG.warning("limits are kept alone, 1/%d of each rate: %s", self.replicas, error)
            return
        self._said_at = now
        self.breaker.succeeded()
        self._keep_to(1)
        if ahead.replicas != self.replicas:
            self.replicas = max(1, ahead.replicas)
            if self._on_replicas is not None:
                self._on_replicas(self.replicas)
        now = self._clock.monotonic()
        for (limiter, _, cell), seconds in zip(cells, ahead.seconds, strict=True):
            cell.arrival = max(cell.arrival, now + seconds + cell.unsent * limiter.interval)

    async def leave(self) -> None:
        """Tell the last, and that this replica no longer takes a share."""
        cells = self._open(self._clock.monotonic())
        owed = [cell.unsent / limiter.rate for limiter, _, cell in cells]
        await self._store.exchange([client for _, client, _ in cells], owed, leaving=True)

    def _open(self, now: float) -> list[tuple[Gcra, str, Cell]]:
        """Return the clients that owe something here, those with news first, and forget the others.

        A client is asked about for as long as it owes: that is what makes bursts at one replica after the other paid.
        """
        told, news = [], []
        for prefix, limiter in self._limiters.items():
            paid = []
            for client, cell in limiter.cells.items():
                if cell.unsent:
                    news.append((limiter, prefix + client, cell))
                elif cell.arrival > now:
                    told.append((limiter, prefix + client, cell))
                else:
                    paid.append(client)
            for client in paid:
                del limiter.cells[client]
        return [*news, *told][:_CLIENTS_AT_ONCE]

    def _keep_to(self, share: int) -> None:
        for limiter in self._limiters.values():
            limiter.interval = share / limiter.rate
