"""How the streams of a platform are: of those that run by their actors, of the others by their checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from headway.cluster.compose import Installation
from headway.cluster.stream_parts import views_of
from headway.core import ray_session
from headway.core.control import ControlStore
from headway.core.errors import HeadwayError, Unavailable
from headway.core.types import Principal
from headway.features.definitions import EventSource, WindowView
from headway.features.named import source_named
from headway.features.streams import group
from headway.features.streams.checkpoint import read
from headway.features.streams.parts import Progress
from headway.features.streams.port import EventStream, Topic, TopicGone
from headway.features.streams.state import measure
from headway.features.streams.status import Budget, PartitionStatus, StateSize, alarms

_ANSWER_S = 10.0
_POLL_S = 0.02


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One source."""

    source: str
    state: str
    """running | begins (no partition was read yet) | stopped | no topic."""
    error: str = ""
    """Why the stream does not begin, or does not answer."""
    partitions: tuple[PartitionStatus, ...] = ()
    sizes: tuple[StateSize, ...] = ()
    """What its views hold online; empty where that was not asked for."""
    alarms: tuple[str, ...] = ()
    """One line per budget that is exceeded."""


def status(
    at: Installation, principal: Principal, sources: Sequence[str] = (), *, sizes: bool = False
) -> list[SourceStatus]:
    """Return how the streams of some sources are, or of all; needs `data:read`, though no row is read.

    With `sizes`, what each view holds online is counted too, for which all of its values are read.
    """
    principal.require("data", "read")
    names = list(dict.fromkeys(sources)) or sorted(s.name for s in at.project.collect("features", EventSource))
    chosen = [source_named(at.project, name) for name in names]
    ray_session.connect(at.settings)
    return [_status(at, source, sizes) for source in chosen]


def ends(stream: EventStream, name: str) -> list[int]:
    """Return where each partition of a source's topic ends now."""
    topic = stream.topic(name)
    return [stream.bounds(topic, partition).end for partition in range(topic.partitions)]


def await_readable(at: Installation, name: str, until: Sequence[int], *, within_s: float = 60.0) -> None:
    """Return once the online store has what a source's topic held up to some offsets, one per partition.

    Unavailable tells how much is missing after `within_s`, and why.
    """
    ray_session.connect(at.settings)
    deadline = time.monotonic() + within_s
    while True:
        state, error, found = _partitions(at, name)
        position = {one.progress.partition: one.progress.position for one in found if one.state == "running"}
        left = sum(max(0, end - position.get(partition, 0)) for partition, end in enumerate(until))
        if not left:
            return
        if time.monotonic() > deadline:
            errors = [error, *(f"partition {one.progress.partition}: {one.error}" for one in found if one.error)]
            why = "; ".join(filter(None, errors)) or f"the stream is {state}"
            raise Unavailable(
                f"{left:,} events of {name} are not readable after {within_s:.0f} s: {why}",
                retry_after_s=1.0,
                hint=f"headway stream status {name}",
            )
        time.sleep(_POLL_S)


def _status(at: Installation, source: EventSource, sizes: bool) -> SourceStatus:
    budget, now = Budget(), at.clock.now()
    measured: tuple[StateSize, ...] = ()
    if sizes:
        views = [view for view in views_of(at, source) if isinstance(view, WindowView)]
        measured = tuple(measure(at.settings.redis_features_url, view, budget, now) for view in views)
    state, error, partitions = _partitions(at, source.name)
    return SourceStatus(
        source=source.name,
        state=state,
        error=error,
        partitions=tuple(partitions),
        sizes=measured,
        alarms=tuple(alarms(partitions if state == "running" else [], measured, budget, now)),
    )


def _partitions(at: Installation, name: str) -> tuple[str, str, list[PartitionStatus]]:
    """Return state, error and partitions of a source."""
    import ray

    actors = group.running(name)
    if actors:
        try:
            asked = [(actor.status.remote(), actor.error.remote()) for actor in actors]
            answers = [ray.get(list(pair), timeout=_ANSWER_S) for pair in asked]
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            return "begins", f"its actor does not answer: {error}", []
        found = sorted((one for some, _ in answers for one in some), key=lambda one: one.progress.partition)
        return "running" if found else "begins", "; ".join(filter(None, (why for _, why in answers))), found
    try:
        topic = at.stream.topic(name)
        return "stopped", "", [_at_rest(at.control, at.stream, topic, n) for n in range(topic.partitions)]
    except TopicGone:
        return "no topic", "", []
    except HeadwayError as error:
        return "stopped", str(error), []


def _at_rest(control: ControlStore, stream: EventStream, topic: Topic, partition: int) -> PartitionStatus:
    """Return how a partition is that nobody processes."""
    at = read(control, topic, partition)
    return PartitionStatus(
        progress=Progress(
            partition=partition,
            epoch=at.epoch,
            position=at.offset,
            checkpoint=at.offset,
            watermark=at.watermark,
            pending_rows=0,
            pending_bytes=0,
            rows=at.rows,
            dead=at.dead,
            lost=at.lost,
            unknown=(),
        ),
        end=stream.bounds(topic, partition).end,
        state="stopped",
    )
