"""What an event stream must do: partitions of ordered messages under offsets that are never used twice.

The reader keeps the offset, not the stream, so that offset and state can move in one step. Delivery is at least once:
a producer that repeats a publication, after an error or a crash, makes duplicates, which event ids tell apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from headway.core.errors import PlatformError, Unavailable

MAX_MESSAGE = 1 << 20
"""Bytes of one value; a larger one is refused when it is published."""


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message of a partition."""

    offset: int
    key: bytes
    """Messages of one key are in one partition."""
    value: bytes
    published: int
    """When the stream took it, UTC microseconds; the same at every reading."""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic as it is now."""

    name: str
    identity: str
    """Another one after the topic was deleted and made anew: offsets began again then."""
    partitions: int


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Which offsets of a partition can be read: first ≤ offset < end."""

    first: int
    end: int


class TopicGone(Unavailable):
    """The topic does not exist any more, or another one has its name."""

    code = "topic_gone"


class TopicFull(Unavailable):
    """Some partitions hold as much as they may until their consumer releases something; the others took what came."""

    code = "topic_full"

    def __init__(self, topic: str, partitions: Collection[int]) -> None:
        self.partitions = frozenset(partitions)
        super().__init__(
            f"{topic} is full (partition {', '.join(map(str, sorted(partitions)))})",
            retry_after_s=1.0,
            hint="repeat it later; if that does not help its consumer stands still: headway stream status",
        )


class RetentionGap(PlatformError):
    """Messages were dropped before they were read; `offset` was asked for, `first` is the first that is left."""

    code = "retention_gap"

    def __init__(self, topic: str, partition: int, offset: int, first: int) -> None:
        self.offset = offset
        self.first = first
        super().__init__(
            f"{topic}/{partition}: {first - offset} messages from {offset} on were dropped before they were read",
            hint="raise the retention; skip the gap once what is missing came to the lake another way",
        )


class OffsetBeyondEnd(PlatformError):
    """More was read before than the partition holds: the stream lost messages, or is another one."""

    code = "offset_beyond_end"

    def __init__(self, topic: str, partition: int, offset: int, end: int) -> None:
        self.offset = offset
        self.end = end
        super().__init__(
            f"{topic}/{partition} ends at {end} and was read up to {offset} before",
            hint="was the topic made anew, or its server restored? start the stream under another name",
        )


class EventStream(Protocol):
    """Keyed partitions of messages."""

    def topic(self, name: str) -> Topic:
        """Return the topic; TopicGone where there is none."""
        ...

    def create(self, name: str, *, partitions: int) -> Topic:
        """Make a topic, or return it as it is.

        Raises InvalidValue for a name that cannot be one, Conflict where the topic has another number of partitions,
        and Unavailable where the stream is away or does not let this client make topics.
        """
        ...

    def publish(self, topic: Topic, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Append (key, value) pairs in order; returns when the stream has them.

        Raises TooLarge before anything is written, TopicGone, TopicFull, and Unavailable where the stream is away: some
        messages may be there then, and all may be repeated.
        """
        ...

    def read(self, topic: Topic, partition: int, offset: int, *, limit: int, wait_s: float = 0.0) -> list[Message]:
        """Return at most `limit` messages from an offset on, in order; waits for the first at most `wait_s` seconds.

        Raises RetentionGap, OffsetBeyondEnd, TopicGone, or Unavailable where the stream is away.
        """
        ...

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """Return which offsets can be read."""
        ...

    def release(self, topic: Topic, partition: int, offset: int) -> None:
        """Say that what is before an offset is safe elsewhere: the stream may forget it, and need not."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key: CRC-32, as librdkafka's default has it, so that its producers agree with ours."""
    return zlib.crc32(key) % partitions
