"""Publishes a history's events to the topics of its sources, as producers would, and waits until they are readable."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from headway.cluster import streams
from headway.cluster.compose import Installation
from headway.cluster.stream_status import await_readable, ends
from headway.core import ray_session
from headway.core.progress import Progress
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.definitions import EventSource
from headway.features.history import History
from headway.features.streams import group
from headway.features.streams.port import EventStream, TopicFull, TopicGone
from headway.features.streams.publishing import TopicWriter, keys_of

_PIECE = 500
_FULL_S = 60.0


def drain(at: Installation, history: History, principal: Principal, progress: Progress) -> None:
    """Let what an earlier run left in the topics pass, before the online store is taken back to its start."""
    ray_session.connect(at.settings)
    left = {}
    for source in history.sources:
        try:
            left[source.name] = ends(at.stream, source.name)
        except TopicGone:
            continue
    if any(not group.running(name) for name, until in left.items() if any(until)):
        streams.run(at, principal, progress, tuple(left))
    for name, until in left.items():
        if any(until):
            await_readable(at, name, until)


class Producer:
    """Publishes rows of sources from a process of its own, as producers elsewhere would: evenly, and yielding.

    Tables are handed over beforehand (`hand_over`), so that nothing is copied while decisions are timed.
    """

    def __init__(self, at: Installation, history: History) -> None:
        import ray

        ray_session.connect(at.settings)
        self._at = at
        self._sources = {source.name: source for source in history.sources}
        self._process = ray.remote(_Process).options(num_cpus=0).remote(at.settings)
        ray.get(self._process.ready.remote())

    def __enter__(self) -> Producer:
        """Use it until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        import ray

        ray.kill(self._process)

    def hand_over(self, tables: Mapping[str, pa.Table]) -> list[tuple[EventSource, Any]]:
        """Put tables by source where the process finds them."""
        import ray

        return [(self._sources[name], ray.put(table)) for name, table in tables.items()]

    def publish(self, handed: Sequence[tuple[EventSource, Any]], *, over_s: float = 0.0) -> None:
        """Publish what was handed over, spread over so many seconds, and return once it can be read online."""
        import ray

        until = ray.get(self._process.publish.remote(list(handed), over_s))
        for name, positions in until.items():
            await_readable(self._at, name, positions)


class _Process:
    """The producer's side, a Ray actor."""

    def __init__(self, settings: Settings) -> None:
        ray_session.run_in_background()
        self._stream = Installation(settings, writer="demo-publish").stream

    def ready(self) -> bool:
        return True

    def publish(self, handed: Sequence[tuple[EventSource, Any]], over_s: float) -> dict[str, list[int]]:
        """Publish and return where the topics end then."""
        import ray

        tables = [(source, ray.get(table)) for source, table in handed]
        rows = sum(table.num_rows for _, table in tables)
        for source, table in tables:
            send(self._stream, source, table, over_s=over_s * table.num_rows / rows)
        return {source.name: ends(self._stream, source.name) for source, _ in handed}


def send(stream: EventStream, source: EventSource, table: pa.Table, *, over_s: float = 0.0) -> None:
    """Publish rows of one source evenly over a time, those of an entity in their order.

    Waits while its topic is full, at most a minute.
    """
    writer = TopicWriter(stream, source.name)
    begin = time.monotonic()
    deadline = begin + over_s + _FULL_S
    for first in range(0, table.num_rows, _PIECE):
        rows = table.slice(first, _PIECE)
        time.sleep(max(0.0, begin + over_s * first / table.num_rows - time.monotonic()))
        pairs = list(zip(keys_of(source, rows), map(msgspec.json.encode, rows.to_pylist()), strict=True))
        while True:
            try:
                writer.publish(pairs)
                break
            except TopicFull as error:  # all of it may be repeated: events are known by their ids
                if time.monotonic() > deadline:
                    raise
                time.sleep(error.retry_after_s)
