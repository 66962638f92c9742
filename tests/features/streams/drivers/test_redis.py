from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from headway.core.errors import Conflict, Unavailable
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import Topic, TopicGone
from tests.features.streams.conformance import StreamConformance, pairs, read_all
from tests.features.valkey import Valkey


class RedisPeer:
    def __init__(self, server: Valkey) -> None:
        self._server = server
        self._numbers = count()

    def client(self) -> RedisStream:
        return RedisStream(self._server.url)

    def create(self, partitions: int, capacity: int = 10_000) -> Topic:
        return self.client().create(f"t{next(self._numbers)}", partitions=partitions, capacity=capacity)

    def vanish(self, topic: Topic) -> None:
        self.client().delete(topic.name)

    def lose(self, topic: Topic) -> None:
        stream = self.client()
        stream.publish(topic, pairs(0, 30))
        stream.release(topic, 0, 12)

    def down(self) -> None:
        self._server.kill()


@pytest.fixture
def peer() -> Iterator[RedisPeer]:
    folder = Path(tempfile.mkdtemp(prefix="v"))
    server = Valkey(folder)
    server.start()
    yield RedisPeer(server)
    server.kill()
    shutil.rmtree(folder)


class TestRedisStream(StreamConformance):
    pass


def test_a_full_partition_refuses_and_drops_nothing(peer: RedisPeer) -> None:
    topic, stream = peer.create(1, capacity=50), peer.client()
    stream.publish(topic, pairs(0, 50))
    with pytest.raises(Unavailable, match="is full"):
        stream.publish(topic, pairs(50, 1))
    assert len(read_all(stream, topic, 0, 0, 50)) == 50
    stream.release(topic, 0, 10)
    stream.publish(topic, pairs(50, 10))
    assert stream.bounds(topic, 0).end == 60


def test_a_topic_made_anew_is_another(peer: RedisPeer) -> None:
    stream = peer.client()
    old = stream.create("t", partitions=1)
    assert stream.create("t", partitions=1) == old
    with pytest.raises(Conflict):
        stream.create("t", partitions=2)
    stream.publish(old, pairs(0, 9))
    stream.delete("t")
    stream.delete("t")
    new = stream.create("t", partitions=1)
    stream.publish(new, pairs(0, 20))
    assert new.identity != old.identity
    with pytest.raises(TopicGone):
        stream.read(old, 0, 9, limit=5)
    with pytest.raises(TopicGone):
        stream.publish(old, pairs(9, 1))
