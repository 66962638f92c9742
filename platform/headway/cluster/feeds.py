"""Feeds on a running platform: who may, what they are brought into, and polling."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.cluster.stream_parts import views_of
from headway.core.errors import AccessError, HeadwayError, Unavailable
from headway.core.progress import Progress
from headway.core.types import Principal
from headway.features.feeds.chunk import Feed
from headway.features.feeds.run import FeedReport, Into, run
from headway.features.named import source_named
from headway.features.streams.dead_letters import DEAD_LETTERS, table_of
from headway.features.streams.decoding import DeadLetter
from headway.features.streams.publishing import Judge, TopicWriter


def feed(
    at: Installation,
    principal: Principal,
    progress: Progress,
    name: str,
    find: Callable[[], Sequence[Feed]],
    *,
    restart: bool = False,
    every_s: float | None = None,
) -> FeedReport:
    """Bring feeds into the topic of a source, one after the other, and return what was done.

    Args:
        at: The installation.
        principal: Who asks; needs `ingest:<source>`.
        progress: Where each feed is a stage.
        name: Of the source.
        find: Returns what to read, each time anew: a folder may have more files then.
        restart: Begin anew, as if nothing had been read before.
        every_s: Read again after so many seconds, until interrupted: then the report is of all readings. Once one was
            read, a source that is away is asked again at the next turn.

    Raises TopicGone where nothing takes events of the source, and what a feed raises.
    """
    source = source_named(at.project, name)
    try:
        principal.require("ingest", name)
    except AccessError:
        _record(at, principal, name, "denied")
        raise
    into = Into(
        judge=Judge(source, views_of(at, source)),
        writer=TopicWriter(at.stream, name),
        control=at.control,
        clock=at.clock,
        letters=lambda letters, batch: _keep(at, name, letters, batch),
        pause=time.sleep,
    )
    at.stream.topic(name)  # TopicGone before anything is read
    report, turn = FeedReport(source=name), 0
    _record(at, principal, name, "intended")
    try:
        while True:
            _turn(find(), into, report, progress, restart=restart and turn == 0, lenient=turn > 0)
            if every_s is None:
                break
            turn += 1
            time.sleep(every_s)
    except KeyboardInterrupt:
        if every_s is None:
            _record(at, principal, name, f"interrupted after {report.read} rows")
            raise
    except HeadwayError:
        _record(at, principal, name, f"failed after {report.read} rows")
        raise
    _record(at, principal, name, f"{report.published} published, {report.refused} refused")
    return report


def _turn(
    feeds: Sequence[Feed], into: Into, report: FeedReport, progress: Progress, *, restart: bool, lenient: bool
) -> None:
    """Read each feed to its end; where `lenient`, one that is away is left to the next turn."""
    known = report.before
    for one in feeds:
        before = report.read
        with progress.stage(_short(one.name)) as stage:
            try:
                run(one, into, report, restart=restart, advance=stage.advance)
            except Unavailable as error:
                if not lenient:
                    raise
                stage.note(str(error))
            stage.note(f"{report.read - before:,} rows")
    if lenient:  # what a turn before has read is in the report already
        report.before = known


def _short(name: str) -> str:
    """Return what stands in front of a progress line."""
    kind, _, rest = name.partition(":")
    return {"file": rest.rpartition("/")[2], "topic": rest.rpartition(":")[2]}.get(kind, kind or "input")


def _keep(at: Installation, source: str, letters: Sequence[DeadLetter], batch: str) -> None:
    table: pa.Table = table_of(source, "feed", 0, letters)
    at.committer.append(DEAD_LETTERS, table, batch)


def _record(at: Installation, principal: Principal, source: str, outcome: str) -> None:
    at.audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action="stream.feed",
        resource=source,
        purpose=principal.purpose,
        outcome=outcome,
    )
