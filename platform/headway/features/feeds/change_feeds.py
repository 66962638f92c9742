"""Where change events come from: files with one per line, standard input, or another topic of the stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from headway.core.errors import Conflict
from headway.features.feeds.changes import Changes
from headway.features.feeds.chunk import CHUNK_ROWS, Chunk
from headway.features.feeds.files import FileFeed, FilePosition, encoded
from headway.features.streams.port import MAX_MESSAGE, EventStream


class LinesFeed(FileFeed):
    """A file of change events, one per line."""

    def __init__(self, path: Path, changes: Changes) -> None:
        super().__init__(path)
        self._changes = changes

    def chunks(self, position: bytes | None) -> Iterator[Chunk]:
        """Read from a position on."""
        begin, rows = self.start(position)
        offset = msgspec.json.decode(position, type=FilePosition).offset if position is not None and rows else 0
        with self.path.open("rb") as file:
            file.seek(offset)
            yield from _lines(file, self._changes, f"{self.path.name} line", rows, begin)


class InputFeed:
    """Change events of standard input, one per line; they come once, so there is no position to go on from."""

    def __init__(self, file: BinaryIO, changes: Changes) -> None:
        self._file = file
        self._changes = changes
        self.name = ""
        self.ignored: list[str] = []

    def chunks(self, position: bytes | None) -> Iterator[Chunk]:  # noqa: ARG002  # the form of all feeds
        """Read to the end."""
        begin = FilePosition(size=0, modified=0, rows=0)
        yield from _lines(self._file, self._changes, "line", 0, begin)


def _lines(file: BinaryIO, changes: Changes, label: str, done: int, begin: FilePosition) -> Iterator[Chunk]:
    """Return chunks of the lines that follow; empty lines count and are skipped without being told."""
    number, offset = done, 0 if not file.seekable() else file.tell()
    chunk = Chunk(position=b"", label=label)
    while line := file.readline(MAX_MESSAGE):
        offset += len(line)
        number += 1
        if len(line) == MAX_MESSAGE and not line.endswith(b"\n"):
            chunk.refuse(number, line[:1_000], f"is longer than {MAX_MESSAGE:,} bytes")
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_MESSAGE)
                offset += len(line)
        elif line.strip():
            take(chunk, number, line, changes)
        if chunk.full:
            chunk.position = encoded(begin, number, offset)
            yield chunk
            chunk = Chunk(position=b"", label=label)
    if chunk.read:
        chunk.position = encoded(begin, number, offset)
        yield chunk


class _Offsets(msgspec.Struct, frozen=True, kw_only=True):
    identity: str
    next: Mapping[int, int]
    """Partition → the message that comes next."""


class TopicFeed:
    """Change events of a topic, such as one that Debezium writes; read by partition, to what is its end now."""

    def __init__(self, stream: EventStream, topic: str, address: str, changes: Changes) -> None:
        """Read from a topic; `address` tells its stream from others."""
        self._stream = stream
        self._topic = topic
        self._changes = changes
        self.name = f"topic:{address}:{topic}"
        self.ignored: list[str] = []

    def chunks(self, position: bytes | None) -> Iterator[Chunk]:
        """Read from a position on; RetentionGap where the topic has dropped what comes next."""
        topic = self._stream.topic(self._topic)
        left = None if position is None else msgspec.json.decode(position, type=_Offsets)
        if left is not None and left.identity != topic.identity:
            raise Conflict(
                f"the topic {self._topic} is another one than was read before",
                hint="--restart reads it from its beginning",
            )
        offsets = {} if left is None else dict(left.next)
        for partition in range(topic.partitions):
            bounds = self._stream.bounds(topic, partition)
            at = offsets.setdefault(partition, bounds.first)
            while at < bounds.end:
                messages = self._stream.read(topic, partition, at, limit=CHUNK_ROWS, wait_s=1.0)
                if not messages:
                    break
                chunk = Chunk(position=b"", label=f"{self._topic}/{partition} offset")
                for message in messages:
                    take(chunk, message.offset, message.value, self._changes)
                at = offsets[partition] = messages[-1].offset + 1
                chunk.position = msgspec.json.encode(_Offsets(identity=topic.identity, next=offsets))
                yield chunk


def take(chunk: Chunk, number: int, value: bytes, changes: Changes) -> None:
    """Add a change event to a chunk: an event, refused, or skipped."""
    try:
        event = changes.event(value)
    except ValueError as error:
        chunk.refuse(number, value, str(error))
        return
    if event is None:
        chunk.skipped += 1
    else:
        chunk.add(number, event)
