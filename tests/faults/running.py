"""A stream that runs in a process of its own, and what lake and online store hold beside what was sent."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.features.arrow import events_of
from headway.features.lake.tables import Location
from headway.features.streams.drivers import open_stream
from headway.features.streams.group import PartitionGroup
from headway.features.windows.codec import prefix, unpack
from tests.features.oracle import Event
from tests.features.samples import table
from tests.features.streams.world import TOPIC, VIEW, World, message

_PRELOADED = ["tests.faults.running", "pyiceberg.catalog.sql", "pyiceberg.io.pyarrow", "pyarrow.acero"]
_PATIENCE_S = 90.0


def run(place: Place) -> None:
    """Process every partition until killed, as an actor does."""
    group = PartitionGroup(lambda: place.world().parts, range(place.partitions))
    signal.sigwait([signal.SIGTERM])
    group.stop()


class Place:
    """Addresses; plain text, for other processes."""

    def __init__(
        self, url: str, lake: Location, *, stream: str = "", control: str = "", partitions: int = 1, **limits: int
    ) -> None:
        self.url, self.lake, self.partitions = url, lake, partitions
        self.stream, self.control = stream or url, control or url
        self.limits = {"batch_rows": 200, "segment_rows": 900, "segment_age": 300_000} | limits

    def world(self) -> World:
        return World(
            self.url, self.lake, SystemClock(), open_stream(self.stream), RedisControlStore(self.control), (VIEW,),
            **self.limits,
        )  # fmt: skip


class Running:
    """A processor's process and what was sent to it; ends it when left."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.stream = open_stream(place.stream)
        self.sent: list[Event] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._process: BaseProcess | None = None

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self._process = self._context.Process(target=run, args=(self.place,))
        self._process.start()

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.is_alive(), "it ended by itself"
        self._process.kill()
        self._process.join()

    def publish(self, events: Sequence[Event], **changed: Any) -> None:
        """Send events that the platform has to take."""
        self.send([message(event, **changed) for event in events])
        self.sent += events

    def send(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Send any messages."""
        self.stream.publish(self.stream.topic(TOPIC), pairs)

    def until_safe(self) -> float:
        """Wait until lake and online store have all that the stream holds; return the seconds."""
        world, began = self.place.world(), time.monotonic()
        topic = self.stream.topic(TOPIC)

        def safe(partition: int) -> bool:
            at = world.checkpoint(partition)
            end = self.stream.bounds(topic, partition).end
            return at.identity == topic.identity and at.offset >= end and at.epoch > 0

        for partition in range(self.place.partitions):
            until(lambda: safe(partition))  # noqa: B023
        return time.monotonic() - began

    def balance(self) -> tuple[int, int]:
        """Return how many events are missing in lake or online store, and how many are there too often."""
        world = self.place.world()
        sent, lake = Counter(event.id for event in self.sent), Counter(world.in_lake())
        expected = events_of(VIEW, table(self.sent))
        names = [prefix(VIEW) + str(key).encode() for key in expected.keys.tolist()]
        found, _ = unpack(VIEW, world.online._client.mget(names))
        wanted, held = (
            Counter(
                (key, *record)
                for key, record in zip(
                    np.repeat(np.arange(len(names)), np.diff(events.offsets)).tolist(),
                    events.records.tolist(),
                    strict=True,
                )
            )
            for events in (expected, found)
        )
        return (sent - lake).total() + (wanted - held).total(), (lake - sent).total() + (held - wanted).total()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, but not for ever."""
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


def payments_now(first: int, count: int, *, keys: int = 7, apart: int = 1) -> list[Event]:
    """Return payments of now, in order."""
    now = SystemClock().now()
    return [Event(i % keys, now + apart * i, now + apart * i, i, i) for i in range(first, first + count)]
