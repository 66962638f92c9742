"""Streams of a running platform: a topic per source, named like it, and actors that feed lake and online store from it.

What a source's events become is decided by the project: every version of every view that a use case reads. A deployment
tells running streams which these are now; a restart of an actor finds out by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from headway.cluster.compose import Installation
from headway.cluster.history import fill_new
from headway.cluster.local import process as processes
from headway.cluster.stream_parts import stream_parts, views_of
from headway.core import ray_session
from headway.core.errors import AccessError, Conflict, HeadwayError, NotFound, ServiceFailed, Unavailable
from headway.core.platform_state import read_state
from headway.core.progress import Progress
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.definitions import EventSource
from headway.features.named import source_named
from headway.features.streams import group
from headway.features.streams.parts import require_lenient
from headway.features.streams.port import EventStream, Topic, TopicGone

_LOG = logging.getLogger(__name__)
PARTITIONS = 4
"""Of a topic that is made here."""
_BEGIN_S = 60.0
_ANSWER_S = 90.0
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stream that runs."""

    source: str
    partitions: int
    actors: int
    views: tuple[str, ...]
    """Names of what it feeds besides the lake."""


def run(
    at: Installation,
    principal: Principal,
    progress: Progress,
    sources: Sequence[str] = (),
    *,
    partitions: int | None = None,
    actors: int = 1,
) -> list[Running]:
    """Start the streams of some sources, or of all, and return once each is at work; one that runs goes on.

    The endpoint of events is deployed anew, so that it judges by the definitions that there are now.

    Args:
        at: The installation.
        principal: Who asks; needs `features:write`.
        progress: Where each source is a stage.
        sources: Their names; none: every source of the project.
        partitions: Of topics that are not there yet; Conflict where one has another number.
        actors: How many share the partitions of a topic; Conflict where another number runs.
    """
    chosen = _allowed(at, principal, "stream.run", sources)
    with progress.stage("start streams") as stage:
        started = [_start(at, source, partitions, actors) for source in chosen]
        stage.note(", ".join(one.source for one in started))
    # Serve reads its environment at import: only now this process has it
    from headway.cluster.events import deploy_events

    with progress.stage("endpoint") as stage:
        stage.note(deploy_events(at))
    for one in started:
        with progress.stage(f"stream {one.source}") as stage:
            _await(one.source, group.running(one.source), one.partitions)
            stage.note(f"{one.partitions} partitions, views: {', '.join(one.views) or 'none'}")
        _record(at, principal, "stream.run", one.source, "done")
    return started


def stop(at: Installation, principal: Principal, progress: Progress, sources: Sequence[str] = ()) -> list[str]:
    """Stop the streams of some sources, or of all, once what is pending is in the lake; return which ran.

    Events that come later wait in the topic. Needs `features:write`.
    """
    stopped = []
    for source in _allowed(at, principal, "stream.stop", sources):
        found = group.running(source.name)
        if found:
            with progress.stage(f"stop {source.name}"):
                _end(source.name, found)
            _record(at, principal, "stream.stop", source.name, "done")
            stopped.append(source.name)
    return stopped


def skip(at: Installation, principal: Principal, name: str) -> int:
    """Let a stream go on after messages that its topic dropped before they were read; return how many.

    They are counted as lost from then on. Needs `features:write`; NotFound where the stream does not run.
    """
    (source,) = _allowed(at, principal, "stream.skip", [name])
    actors = group.running(source.name)
    if not actors:
        raise NotFound("running stream of", name, known=[other.name for other in _all(at) if group.running(other.name)])
    lost = sum(int(_answer(actor.skip.remote(), name)) for actor in actors)
    _record(at, principal, "stream.skip", name, f"{lost} messages")
    return lost


def flush(at: Installation, names: Sequence[str]) -> None:
    """Bring what running streams have read to the lake now, instead of within seconds."""
    ray_session.connect(at.settings)
    asked = [(name, actor.flush.remote()) for name in names for actor in group.running(name)]
    for name, reference in asked:
        _answer(reference, name)


def follow(at: Installation) -> None:
    """Let running streams feed the views that there are now: new versions are filled from the lake, then fed.

    A stream that does not take it up is warned of: its new views stay where they are and say so by their watermarks.
    """
    ray_session.connect(at.settings)
    for source in _all(at):
        actors = group.running(source.name)
        try:
            views = views_of(at, source) if actors else ()
            for actor in actors:
                _answer(actor.feed.remote(source, views), source.name)
        except HeadwayError as error:
            _LOG.warning("the stream of %s goes on with the views that it had: %s", source.name, error)


def settle(settings: Settings, progress: Progress) -> None:
    """Bring what running streams have pending to the lake, before the platform stops.

    Nothing is lost where that fails: the next run goes on from the checkpoint.
    """
    if not _any(settings):
        return
    with progress.stage("streams") as stage:
        try:
            ray_session.connect(settings)
            at = Installation(settings, writer="down")
            running = {source.name: found for source in _all(at) if (found := group.running(source.name))}
            for name, actors in running.items():
                _end(name, actors)
            stage.note(", ".join(running) or "none")
        except HeadwayError as error:
            stage.note(f"what was pending is done again by the next run: {error}")
        finally:
            import ray

            ray.shutdown()


def topic_of(stream: EventStream, name: str, partitions: int | None = None) -> Topic:
    """Return the topic of a source, made where it is not there and the stream lets us."""
    if partitions is None:
        with suppress(TopicGone):
            return stream.topic(name)
    return stream.create(name, partitions=partitions or PARTITIONS)


def _start(at: Installation, source: EventSource, partitions: int | None, wanted: int) -> Running:
    views = views_of(at, source, strict=True)
    require_lenient(views)
    topic = topic_of(at.stream, source.name, partitions)
    count = min(wanted, topic.partitions)
    before = group.running(source.name)
    if before and len(before) != count:
        raise Conflict(
            f"{len(before)} actors run the stream of {source.name}, not {count}",
            hint=f"headway stream stop {source.name}, then run it anew",
        )
    with suppress(NotFound):  # the lake has nothing of this source yet
        fill_new(at, views)
    actors = group.start(source.name, partial(stream_parts, source.name), topic.partitions, groups=count)
    for actor in before:
        _answer(actor.feed.remote(source, views), source.name)
    return Running(
        source=source.name,
        partitions=topic.partitions,
        actors=len(actors),
        views=tuple(sorted({view.name for view in views})),
    )


def _await(name: str, actors: Sequence[Any], partitions: int) -> None:
    """Wait until every partition has been looked at."""
    deadline = time.monotonic() + _BEGIN_S
    while sum(len(_answer(actor.status.remote(), name)) for actor in actors) < partitions:
        if time.monotonic() > deadline:
            why = "; ".join(filter(None, (_answer(actor.error.remote(), name) for actor in actors)))
            raise ServiceFailed(
                f"the stream of {name} does not begin: {why or 'no partition was read'}", hint="headway stream status"
            )
        time.sleep(_POLL_S)


def _end(name: str, actors: Sequence[Any]) -> None:
    """Stop actors by themselves, then for good, and wait until their names are free."""
    import ray

    for reference in [actor.stop.remote() for actor in actors]:
        try:
            _answer(reference, name)
        except Unavailable as error:
            _LOG.warning("the stream of %s leaves something to its successor: %s", name, error)
    for actor in actors:
        ray.kill(actor, no_restart=True)
    deadline = time.monotonic() + _BEGIN_S
    while group.running(name):
        if time.monotonic() > deadline:
            raise ServiceFailed(f"the stream of {name} does not go", hint="headway down")
        time.sleep(_POLL_S)


def _answer(reference: Any, name: str) -> Any:
    """Return what an actor answers; Unavailable where it does not."""
    import ray

    try:
        return ray.get(reference, timeout=_ANSWER_S)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HeadwayError):
            raise error.cause from None
        raise
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
        raise Unavailable(
            f"the stream of {name} does not answer: {error}", retry_after_s=1.0, hint="headway stream status"
        ) from error


def _allowed(at: Installation, principal: Principal, action: str, names: Sequence[str]) -> list[EventSource]:
    """Return the sources that are meant, Ray connected; a refusal is audited."""
    chosen = [source_named(at.project, name) for name in dict.fromkeys(names)] or _all(at)
    try:
        principal.require("features", "write")
    except AccessError:
        _record(at, principal, action, ",".join(names) or "*", "denied")
        raise
    ray_session.connect(at.settings)
    return chosen


def _all(at: Installation) -> list[EventSource]:
    return sorted(at.project.collect("features", EventSource), key=lambda source: source.name)


def _any(settings: Settings) -> bool:
    """Tell by the names of processes whether a stream runs; asking Ray takes seconds."""
    with suppress(HeadwayError):
        state = read_state(settings.home)
        for process in processes.ours(settings.home, state.services.values() if state else ()):
            with suppress(psutil.Error):
                if any(word.startswith(f"ray::{group.HeadwayStream.__name__}") for word in process.cmdline()):
                    return True
    return False


def _record(at: Installation, principal: Principal, action: str, resource: str, outcome: str) -> None:
    at.audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action=action,
        resource=resource,
        purpose=principal.purpose,
        outcome=outcome,
    )
