"""What every driver of the stream port must do."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Protocol

import pytest

from headway.core.errors import Conflict, TooLarge, Unavailable
from headway.features.streams.port import (
    MAX_MESSAGE,
    EventStream,
    Message,
    OffsetBeyondEnd,
    RetentionGap,
    Topic,
    TopicGone,
    partition_of,
)

WAIT = 10.0


class Peer(Protocol):
    """A server, and what happens to it."""

    def client(self) -> EventStream: ...
    def create(self, partitions: int) -> Topic:
        """Return a new, empty topic."""
        ...

    def vanish(self, topic: Topic) -> None: ...
    def lose(self, topic: Topic) -> None:
        """Drop the first messages of partition 0, and keep some."""
        ...

    def down(self) -> None: ...


def pairs(first: int, count: int, producer: str = "a") -> list[tuple[bytes, bytes]]:
    return [(f"k{i % 7}".encode(), f"{producer}{i}".encode()) for i in range(first, first + count)]


def read_all(stream: EventStream, topic: Topic, partition: int, offset: int, count: int) -> list[Message]:
    found: list[Message] = []
    while len(found) < count:
        more = stream.read(topic, partition, offset, limit=100, wait_s=WAIT)
        assert more
        offset = more[-1].offset + 1
        found += more
    return found


class StreamConformance:
    """Inherit it and give the fixture `peer`."""

    @pytest.fixture
    def stream(self, peer: Peer) -> EventStream:
        return peer.client()

    def test_each_partition_keeps_the_order_of_its_keys(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(3)
        assert stream.topic(topic.name) == topic
        sent = pairs(0, 250)
        stream.publish(topic, sent[:120])
        stream.publish(topic, sent[120:])
        for partition in range(3):
            expected = [pair for pair in sent if partition_of(pair[0], 3) == partition]
            found = read_all(stream, topic, partition, 0, len(expected))
            assert [(message.key, message.value) for message in found] == expected
            assert [message.offset for message in found] == list(range(len(expected)))
            assert all(a.published <= b.published for a, b in itertools.pairwise(found))

    def test_a_limit_holds_and_the_next_read_goes_on(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        stream.publish(topic, pairs(0, 50))
        first = stream.read(topic, 0, 0, limit=20, wait_s=WAIT)
        assert 0 < len(first) <= 20
        assert stream.read(topic, 0, len(first), limit=1, wait_s=WAIT)[0].value == f"a{len(first)}".encode()

    def test_a_reader_that_comes_back_reads_the_same_again(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        stream.publish(topic, pairs(0, 40))
        before = read_all(stream, topic, 0, 10, 30)
        stream.close()
        assert read_all(peer.client(), topic, 0, 10, 30) == before

    def test_a_reader_seeks_in_both_directions(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        stream.publish(topic, pairs(0, 40))
        for offset in (0, 35, 5, 6, 39, 0):
            assert stream.read(topic, 0, offset, limit=3, wait_s=WAIT)[0].offset == offset

    def test_any_bytes_pass_unchanged(self, peer: Peer, stream: EventStream) -> None:
        topic, draw = peer.create(1), random.Random(3)
        sent = [(draw.randbytes(draw.randrange(1, 20)), draw.randbytes(draw.randrange(300))) for _ in range(60)]
        sent += [(b"k", b""), (b"\x00", b"\x00"), (b"\r\n", b"\r\n$-1\r\n"), (b"k", draw.randbytes(MAX_MESSAGE))]
        stream.publish(topic, sent)
        assert [(message.key, message.value) for message in read_all(stream, topic, 0, 0, 64)] == sent

    def test_a_message_that_is_too_large_is_refused_and_nothing_written(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        with pytest.raises(TooLarge) as caught:
            stream.publish(topic, [(b"k", b"fine"), (b"k", b"x" * (MAX_MESSAGE + 1))])
        assert caught.value.field == "messages[1]"
        assert stream.bounds(topic, 0).end == 0

    def test_a_reader_waits_for_what_comes(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        assert stream.read(topic, 0, 0, limit=5) == []
        later = threading.Timer(0.2, lambda: peer.client().publish(topic, [(b"k", b"late")]))
        later.start()
        found: list[Message] = []
        for _ in range(20):
            found = found or stream.read(topic, 0, 0, limit=5, wait_s=1.0)
        later.join()
        assert [message.value for message in found] == [b"late"]

    def test_bounds_tell_the_lag(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(2)
        assert stream.bounds(topic, 0).end == 0
        sent = pairs(0, 60)
        stream.publish(topic, sent)
        for partition in range(2):
            bounds = stream.bounds(topic, partition)
            assert bounds.first == 0
            assert bounds.end == sum(partition_of(key, 2) == partition for key, _ in sent)

    def test_producers_side_by_side_lose_nothing_and_keep_their_order(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)

        def produce(name: str) -> None:
            own = peer.client()
            for i in range(0, 200, 20):
                own.publish(topic, pairs(i, 20, name))
            own.close()

        threads = [threading.Thread(target=produce, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        values = [message.value for message in read_all(stream, topic, 0, 0, 600)]
        for name in "abc":
            own = [value for value in values if value.startswith(name.encode())]
            assert own == [value for _, value in pairs(0, 200, name)]

    def test_a_topic_that_is_there_is_not_made_again(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(2)
        stream.publish(topic, pairs(0, 10))
        assert stream.create(topic.name, partitions=2) == topic
        assert sum(stream.bounds(topic, partition).end for partition in range(2)) == 10
        with pytest.raises(Conflict, match="2 partitions, not 3"):
            stream.create(topic.name, partitions=3)

    def test_a_topic_that_is_not_there(self, peer: Peer, stream: EventStream) -> None:
        with pytest.raises(TopicGone):
            stream.topic("nobody-made-this")
        with pytest.raises(TopicGone):  # and asking did not make it
            stream.topic("nobody-made-this")

    def test_a_topic_that_disappears(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        stream.publish(topic, pairs(0, 5))
        assert len(read_all(stream, topic, 0, 0, 5)) == 5
        peer.vanish(topic)
        with pytest.raises(TopicGone):
            stream.topic(topic.name)
        with pytest.raises(TopicGone):
            stream.read(topic, 0, 5, limit=5)
        with pytest.raises(TopicGone):
            stream.bounds(topic, 0)
        with pytest.raises(TopicGone):
            peer.client().publish(topic, pairs(5, 5))

    def test_messages_that_were_dropped_unread_are_an_error(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        peer.lose(topic)
        bounds = stream.bounds(topic, 0)
        assert 0 < bounds.first < bounds.end
        with pytest.raises(RetentionGap) as caught:
            stream.read(topic, 0, 0, limit=5, wait_s=WAIT)
        assert (caught.value.offset, caught.value.first) == (0, bounds.first)
        assert stream.read(topic, 0, bounds.first, limit=1, wait_s=WAIT)[0].offset == bounds.first

    def test_an_offset_beyond_the_end_is_an_error(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        stream.publish(topic, pairs(0, 5))
        with pytest.raises(OffsetBeyondEnd) as caught:
            stream.read(topic, 0, 9, limit=5, wait_s=WAIT)
        assert (caught.value.offset, caught.value.end) == (9, 5)

    def test_what_is_not_released_stays(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        stream.publish(topic, pairs(0, 30))
        stream.release(topic, 0, 20)
        stream.release(topic, 0, 10)
        bounds = stream.bounds(topic, 0)
        assert bounds.first <= 20
        assert [message.offset for message in read_all(stream, topic, 0, 20, 10)] == list(range(20, 30))
        stream.release(topic, 0, 30)
        assert stream.read(topic, 0, 30, limit=5) == []
        stream.publish(topic, pairs(30, 1))
        assert read_all(stream, topic, 0, 30, 1)[0].offset == 30

    def test_a_server_that_is_away_is_unavailable(self, peer: Peer, stream: EventStream) -> None:
        topic = peer.create(1)
        stream.publish(topic, pairs(0, 5))
        peer.down()
        for call in (
            lambda: stream.publish(topic, pairs(5, 1)),
            lambda: stream.read(topic, 0, 5, limit=5),
            lambda: stream.bounds(topic, 0),
            lambda: stream.topic(topic.name),
        ):
            with pytest.raises(Unavailable) as caught:
                call()
            assert caught.value.retry_after_s > 0
