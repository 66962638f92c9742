"""Events on their way into a topic: judged as they will be when they are read, under the key of their entity.

Whoever takes events from outside judges them here first, so that what was accepted does not become a dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from headway.features.definitions import EventSource, View
from headway.features.streams.decoding import DeadLetter, Decoder
from headway.features.streams.port import EventStream, Message, Topic, TopicGone, partition_of

Pair = tuple[bytes, bytes]
"""Key and value of a message."""


@dataclass(kw_only=True)
class Judged:
    """What some values turned out to be."""

    pairs: list[Pair]
    """The events, in order."""
    places: list[int]
    """Where each of them stood among the values."""
    dead: list[DeadLetter] = field(default_factory=list)
    """What is no event; the offset of its message is its place."""
    unknown: set[str] = field(default_factory=set)
    """Fields that came and that the source does not have."""


class Judge:
    """Tells which values are events of a source."""

    def __init__(self, source: EventSource, views: Sequence[View]) -> None:
        """Compile the source's columns; `views` are those that its processors feed."""
        self.source = source
        self._decoder = Decoder(source, views)

    def judge(self, values: Sequence[bytes], now: int) -> Judged:
        """Return the events among JSON texts, as messages, and what is none."""
        messages = [Message(offset=place, key=b"", value=value, published=now) for place, value in enumerate(values)]
        decoded = self._decoder.decode(messages, now)
        dead = {letter.message.offset for letter in decoded.dead}
        places = [place for place in range(len(values)) if place not in dead]
        pairs = [(key, values[place]) for key, place in zip(keys_of(self.source, decoded.rows), places, strict=True)]
        return Judged(pairs=pairs, places=places, dead=decoded.dead, unknown=decoded.unknown)


def keys_of(source: EventSource, rows: pa.Table) -> list[bytes]:
    """Return each row's key: its value in the source's `bucket_by` as text, empty where it is null.

    So the events of one entity are in one partition, in their order.
    """
    texts = rows[source.bucket_by].cast(pa.string()).to_pylist()
    return [b"" if text is None else text.encode() for text in texts]


class TopicWriter:
    """Publishes to the topic of a name, also after it was made anew; not to be shared by threads."""

    def __init__(self, stream: EventStream, name: str) -> None:
        self._stream = stream
        self._name = name
        self._topic: Topic | None = None

    def publish(self, pairs: Sequence[Pair]) -> None:
        """Append pairs in order and return when the stream has them; raises as `EventStream.publish`."""
        if self._topic is not None:
            try:
                self._stream.publish(self._topic, pairs)
                return
            except TopicGone:
                self._topic = None
        self._topic = self._stream.topic(self._name)
        self._stream.publish(self._topic, pairs)

    def partition(self, key: bytes) -> int:
        """Return the partition of a key in the topic that was published to last."""
        return 0 if self._topic is None else partition_of(key, self._topic.partitions)
