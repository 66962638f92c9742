"""Brings a feed into a topic: judge a chunk, publish it, keep what is refused, then move the mark.

The mark moves last, so that wherever a run ends the next one repeats at most a chunk, under the same event ids. A full
or absent stream is waited for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.errors import CapacityError
from headway.features.feeds.chunk import Chunk, Feed
from headway.features.feeds.positions import Mark, Positions
from headway.features.streams.decoding import DeadLetter
from headway.features.streams.port import Message, TopicGone
from headway.features.streams.publishing import Judge, TopicWriter

_NAMED = 10
_PATIENCE_S = 600.0
_LONGEST_PAUSE_S = 5.0

Letters = Callable[[Sequence[DeadLetter], str], None]
"""Keeps dead letters once per batch id."""


@dataclass(kw_only=True)
class FeedReport:
    """What a run did."""

    source: str
    read: int = 0
    """Rows since the mark."""
    published: int = 0
    """Events that the stream took."""
    refused: int = 0
    """Rows that are no events; they are in `streams.dead_letters`."""
    skipped: int = 0
    """Rows that are no events by declaration."""
    before: int = 0
    """Rows that were read up to the mark by runs before."""
    reasons: list[str] = field(default_factory=list)
    """Why the first were refused, and where they stand."""
    ignored: list[str] = field(default_factory=list)
    """Columns that the source does not have."""


@dataclass(frozen=True, kw_only=True)
class Into:
    """What a feed is brought into, and by what."""

    judge: Judge
    writer: TopicWriter
    control: ControlStore
    clock: Clock
    letters: Letters
    pause: Callable[[float], None]
    """Sleeps."""


def run(
    feed: Feed, into: Into, report: FeedReport, *, restart: bool = False, advance: Callable[[int], None] | None = None
) -> None:
    """Read a feed from its mark to its end and add what was done to the report.

    Args:
        feed: What to read.
        into: Where it goes.
        report: Of this run; several feeds may share one.
        restart: Begin anew, as if there were no mark.
        advance: Told how many rows of this feed were read so far.

    Raises TopicGone where the source has no topic, Unavailable where the stream takes nothing for ten minutes, and what
    the feed raises; the mark then stands behind the last chunk that the stream has.
    """
    positions = Positions(into.control, into.judge.source.name, feed.name)
    mark = positions.load() if feed.name else None
    if mark is None or restart:
        mark = Mark(feed=feed.name, position="")
    report.before += mark.read
    first = report.read
    for chunk in feed.chunks(mark.position.encode() or None):
        judged = into.judge.judge(chunk.values, into.clock.now())
        _publish(into, judged.pairs)
        letters = _letters(chunk, judged.dead, into.clock.now())
        if letters:
            into.letters(letters, _batch(positions.digest, letters))
        mark = Mark(
            feed=feed.name,
            position=chunk.position.decode(),
            read=mark.read + chunk.read,
            published=mark.published + len(judged.pairs),
            refused=mark.refused + len(letters),
        )
        if feed.name:
            positions.save(mark)
        report.read += chunk.read
        report.published += len(judged.pairs)
        report.refused += len(letters)
        report.skipped += chunk.skipped
        room = _NAMED - len(report.reasons)
        report.reasons += [f"{chunk.label} {letter.message.offset}: {letter.reason}" for letter in letters[:room]]
        if advance is not None:
            advance(report.read - first)
    report.ignored = sorted({*report.ignored, *feed.ignored})


def _publish(into: Into, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Publish, again and again while the stream is away or full."""
    if not pairs:
        return
    deadline, pause = into.clock.monotonic() + _PATIENCE_S, 0.0
    while True:
        try:
            into.writer.publish(pairs)
        except TopicGone:
            raise
        except CapacityError as error:
            if into.clock.monotonic() > deadline:
                raise
            pause = min(max(error.retry_after_s, 2 * pause), _LONGEST_PAUSE_S)
            into.pause(pause)
        else:
            return


def _letters(chunk: Chunk, dead: Sequence[DeadLetter], now: int) -> list[DeadLetter]:
    """Return all that a chunk refuses, in the order of its rows; an offset is a row's number."""
    letters = [
        DeadLetter(
            message=Message(
                offset=chunk.numbers[letter.message.offset], key=b"", value=letter.message.value, published=now
            ),
            reason=letter.reason,
            field=letter.field,
        )
        for letter in dead
    ]
    letters += [
        DeadLetter(message=Message(offset=row.number, key=b"", value=row.value, published=now), reason=row.reason)
        for row in chunk.refused
    ]
    return sorted(letters, key=lambda letter: letter.message.offset)


def _batch(digest: str, letters: Sequence[DeadLetter]) -> str:
    """Return the same id for the same letters of a feed, so that a repeated chunk leaves them once."""
    content = hashlib.sha256()
    for letter in letters:
        content.update(f"{letter.message.offset}:{letter.reason}:".encode())
        content.update(letter.message.value)
    return f"feed:{digest[:12]}:{content.hexdigest()[:24]}"
