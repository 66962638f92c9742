"""Publishes a history's events to the topics of its sources, as producers would, and waits until they are readable."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

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

_PIECE = 2_000
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


def publish(at: Installation, history: History, tables: Mapping[str, pa.Table]) -> None:
    """Publish rows of sources from a process that yields to those that serve; return once they can be read online."""
    import ray

    ray_session.connect(at.settings)
    task = ray.remote(_publish).options(num_cpus=0)
    sources = {source.name: source for source in history.sources}
    until = ray.get(task.remote(at.settings, [(sources[name], table) for name, table in tables.items()]))
    for name, positions in until.items():
        await_readable(at, name, positions)


def send(stream: EventStream, source: EventSource, table: pa.Table) -> None:
    """Publish rows of one source, those of an entity in their order; wait while its topic is full, at most a minute."""
    writer = TopicWriter(stream, source.name)
    deadline = time.monotonic() + _FULL_S
    for batch in table.to_batches(max_chunksize=_PIECE):
        rows = pa.Table.from_batches([batch])
        pairs = list(zip(keys_of(source, rows), map(msgspec.json.encode, rows.to_pylist()), strict=True))
        while True:
            try:
                writer.publish(pairs)
                break
            except TopicFull as error:  # all of it may be repeated: events are known by their ids
                if time.monotonic() > deadline:
                    raise
                time.sleep(error.retry_after_s)


def _publish(settings: Settings, tables: Sequence[tuple[EventSource, pa.Table]]) -> dict[str, list[int]]:
    """Publish and return where the topics end then."""
    ray_session.run_in_background()
    stream = Installation(settings, writer="demo-publish").stream
    for source, table in tables:
        send(stream, source, table)
    return {source.name: ends(stream, source.name) for source, _ in tables}
