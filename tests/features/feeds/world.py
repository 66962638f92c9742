"""A feed's surroundings in memory, which stop at any effect that a test names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.features.definitions import EventSource
from headway.features.feeds.chunk import Feed
from headway.features.feeds.columns import Columns
from headway.features.feeds.run import FeedReport, Into, run
from headway.features.streams.decoding import DeadLetter
from headway.features.streams.port import Topic
from headway.features.streams.publishing import Judge, Pair, TopicWriter

NOW = 1_700_000_000_000_000
SALES = EventSource(
    name="sales",
    columns={
        "sale": "int64", "shop": "string", "amount": "float32", "big": "float64", "vip": "bool", "due": "timestamp",
    },
    id="sale",
    bucket_by="shop",
)  # fmt: skip
COLUMNS = Columns(source=SALES)


def row(i: int) -> dict[str, object]:
    return {
        "sale": i, "shop": f"s{i % 3}", "amount": i / 4, "big": i / 7, "vip": i % 2 == 0, "due": NOW + i,
        "event_time": NOW - 1_000 + i % 500,
    }  # fmt: skip


class Stopped(BaseException):
    """The process dies here."""


class World:
    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.control = MemoryControlStore()
        self.messages: list[Pair] = []
        self.letters: dict[str, list[DeadLetter]] = {}
        self.stop_at = -1
        """Number of the effect before which, if even, or after which the process dies."""
        self.effects = 0
        self.pauses: list[float] = []
        self.faults: list[Exception] = []

    def topic(self, name: str) -> Topic:
        return Topic(name=name, identity="t", partitions=1)

    def publish(self, topic: Topic, pairs: Sequence[Pair]) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self._effect(lambda: self.messages.extend(pairs))

    def keep(self, letters: Sequence[DeadLetter], batch: str) -> None:
        self._effect(lambda: self.letters.setdefault(batch, list(letters)))

    def put(self, key: str, value: bytes, *, expected: int) -> int:
        versions: list[int] = []
        self._effect(lambda: versions.append(self.control.put(key, value, expected=expected)))
        return versions[0]

    def get(self, key: str) -> object:
        return self.control.get(key)

    def run(self, *feeds: Feed, restart: bool = False) -> FeedReport:
        into = Into(
            judge=Judge(SALES, []),
            writer=TopicWriter(self, SALES.name),  # type: ignore[arg-type]  # what a writer needs of a stream
            control=self,  # type: ignore[arg-type]  # the same, with deaths in between
            clock=self.clock,
            letters=self.keep,
            pause=self.pause,
        )
        report = FeedReport(source=SALES.name)
        for feed in feeds:
            run(feed, into, report, restart=restart)
        return report

    @property
    def ids(self) -> Counter[int]:
        return Counter(json.loads(value)["sale"] for _, value in self.messages)

    @property
    def dead(self) -> Counter[tuple[int, str]]:
        return Counter(
            (letter.message.offset, letter.reason) for letters in self.letters.values() for letter in letters
        )

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(int(seconds * 1e6))

    def _effect(self, act: Callable[[], object]) -> None:
        self.effects += 1
        if self.stop_at == 2 * self.effects:
            raise Stopped
        act()
        if self.stop_at == 2 * self.effects + 1:
            raise Stopped
