"""A stream, a lake and an online store for one source, and what ends up in them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.clock import Clock, SystemClock
from headway.core.control import ControlStore, RedisControlStore
from headway.core.types import Principal
from headway.features.definitions import View, WindowView
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.materialize import materialize
from headway.features.online_store import OnlineStore
from headway.features.recompute import rows_of
from headway.features.streams.checkpoint import Checkpoint, read
from headway.features.streams.dead_letters import DEAD_LETTERS
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.parts import Parts
from headway.features.streams.port import EventStream
from headway.features.streams.processor import PartitionProcessor
from headway.features.streams.segment import Limits
from headway.features.windows.codec import prefix, unpack
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE, Event, a_view

VIEW = a_view(max_events=100_000, retention=10_000)
TOPIC = "payments"


def principal(*scopes: str, purpose: str = "testing") -> Principal:
    return Principal(sub="s", kind="workload", scopes=frozenset(scopes), purpose=purpose, expires=2**60)


def message(event: Event, **changed: Any) -> tuple[bytes, bytes]:
    value = {
        "payment": event.id,
        "card": event.key,
        "amount": None if event.value is None else event.value / 100,
        "event_time": event.event_time,
        "known_time": event.known_time,
        **changed,
    }
    return str(event.key).encode(), json.dumps(value).encode()


def payments(first: int, count: int, keys: int = 7) -> list[Event]:
    return [Event(i % keys, 1_000 + 3 * i, 1_001 + 3 * i, i, i) for i in range(first, first + count)]


class World:
    def __init__(
        self, url: str, lake: Location, clock: Clock, stream: EventStream, control: ControlStore,
        views: Sequence[View] = (VIEW,), **limits: int,
    ) -> None:  # fmt: skip
        limits = {name: limits["batch_rows"] for name in ("catch_up_rows",) if "batch_rows" in limits} | limits
        self.refills = 0
        self.audit = MemoryAudit(clock)
        self.reader = LakeReader(lake, self.audit, clock)
        self.online = OnlineStore(url, clock=clock)
        self.parts = Parts(
            stream=stream, topic=TOPIC, source=SOURCE, views=views, committer=Committer(lake, clock), online_url=url,
            history=self._history, refill=self._refill, control=control, clock=clock,
            principal=lambda: principal("ingest:payments"), audit=self.audit, limits=Limits(**limits),
        )  # fmt: skip

    def processor(self, partition: int = 0) -> PartitionProcessor:
        return PartitionProcessor(self.parts, partition)

    def checkpoint(self, partition: int = 0) -> Checkpoint:
        return read(self.parts.control, self.parts.stream.topic(TOPIC), partition)

    def in_lake(self) -> list[int]:
        found = self.reader.scan(SOURCE, principal("data:read"), "testing")
        return sorted(found["payment"].to_pylist())

    def dead(self) -> Counter[tuple[int, str]]:
        found = self.reader.scan(DEAD_LETTERS.name, principal("data:read", purpose="operations"), "operations")
        return Counter(zip(found["offset"].to_pylist(), found["reason"].to_pylist(), strict=True))

    def online_ids(self, view: WindowView = VIEW, keys: int = 7) -> list[int]:
        stored = self.online._client.mget([prefix(view) + str(key).encode() for key in range(keys)])
        events, _ = unpack(view, stored)
        return sorted(events.records[:, 2].tolist())

    def _refill(self, views: Sequence[View]) -> None:
        self.refills += 1
        materialize(views, self.reader, self.online, principal("data:read"), "testing", resume=True)

    def _history(self, view: WindowView, keys: npt.NDArray[np.generic]) -> pa.Table:
        return rows_of(view, keys, self.reader, principal("data:read"))


def durable_world(url: str, lake: Location) -> World:
    """Return a world all of whose parts but the lake are on one server, with small segments."""
    return World(url, lake, SystemClock(), RedisStream(url), RedisControlStore(url), segment_age=200_000)


def durable_parts(url: str, lake: Location) -> Parts:
    """Return its parts, for another process."""
    return durable_world(url, lake).parts


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, but not for ever."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
