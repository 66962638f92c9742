"""Transactions published at a steady rate, and how long each takes to be readable."""

from __future__ import annotations

import time
from itertools import islice

import msgspec
import numpy as np
import redis

from benchmarks.stream_world import Place
from headway.core.clock import SystemClock
from headway.core.errors import Unavailable
from headway.core.times import EVENT_TIME
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import Topic
from headway.features.windows import codec

_PROBE = 1 << 40
_CARDS = 5_000
_TICK_S = 0.02
_LOOKED_AT = 16


class Load:
    """Publishes at a rate and watches when probes become readable."""

    def __init__(self, stream: RedisStream, topic: Topic, place: Place) -> None:
        from features.fraud import card_activity

        self._stream, self._topic = stream, topic
        self._client = redis.Redis.from_url(place.features)
        self._prefix = codec.prefix(card_activity)
        self._random = np.random.default_rng(5)
        self.sent = self.refused = 0
        self.probes: list[int] = []

    def run(self, rate: int, seconds: float) -> tuple[list[float], float]:
        """Publish for a while; return how long each probe took to be readable, and the publication, in seconds."""
        waiting: dict[int, float] = {}
        taken: list[float] = []
        began = due = time.perf_counter()
        while due < began + seconds:
            card = _PROBE + len(self.probes)
            batch = self._batch(round(rate * _TICK_S), card)
            waiting[card] = due
            self.probes.append(card)
            while True:
                try:
                    self._stream.publish(self._topic, batch)
                    break
                except Unavailable:
                    self.refused += 1
                    self._look(waiting, taken)
                    time.sleep(_TICK_S)
            due += _TICK_S
            while True:
                self._look(waiting, taken)
                if time.perf_counter() >= due:
                    break
                time.sleep(0.001)
        published = time.perf_counter() - began
        deadline = time.perf_counter() + 120
        while waiting and time.perf_counter() < deadline:
            self._look(waiting, taken)
            time.sleep(0.001)
        return taken + [120.0] * len(waiting), published

    def settle(self) -> float:
        """Wait until every probe is readable; return the seconds."""
        began = time.perf_counter()
        waiting = dict.fromkeys(self.probes, began)
        while waiting:
            self._look(waiting, [])
            time.sleep(0.005)
            assert time.perf_counter() < began + 300
        return time.perf_counter() - began

    def _batch(self, count: int, probe: int) -> list[tuple[bytes, bytes]]:
        now = SystemClock().now()
        cards = [*self._random.integers(0, _CARDS, count - 1).tolist(), probe]
        amounts = self._random.gamma(2.0, 40.0, count).round(2).tolist()
        events = [
            {
                "transaction_id": self.sent + i,
                "customer_id": card,
                "terminal_id": card % 997,
                "amount": amount,
                EVENT_TIME: now,
            }
            for i, (card, amount) in enumerate(zip(cards, amounts, strict=True))
        ]
        self.sent += count
        return [(b"", msgspec.json.encode(event)) for event in events]

    def _look(self, waiting: dict[int, float], taken: list[float]) -> None:
        """Take the time of the probes that are readable now; they come in order, so the oldest are looked at."""
        if not waiting:
            return
        cards = list(islice(waiting, _LOOKED_AT))
        values = self._client.mget([self._prefix + str(card).encode() for card in cards])
        now = time.perf_counter()
        for card, value in zip(cards, values, strict=True):
            if value is not None:
                taken.append(now - waiting.pop(card))
