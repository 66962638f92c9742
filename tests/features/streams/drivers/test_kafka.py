from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from headway.core.errors import Unavailable
from headway.features.streams.drivers import kafka as driver
from headway.features.streams.drivers.kafka import KafkaStream
from headway.features.streams.port import Topic
from tests.features.streams.conformance import StreamConformance
from tests.features.streams.kafka import MockKafka


class KafkaPeer:
    def __init__(self, cluster: MockKafka, patch: pytest.MonkeyPatch) -> None:
        self._cluster = cluster
        self._patch = patch
        self._numbers = count()

    def client(self) -> KafkaStream:
        return KafkaStream(self._cluster.servers)

    def create(self, partitions: int) -> Topic:
        name = f"t{next(self._numbers)}"
        self._cluster.create(name, partitions)
        return self.client().topic(name)

    def vanish(self, topic: Topic) -> None:
        self._cluster.vanish(topic.name)

    def lose(self, topic: Topic) -> None:
        stream = self.client()
        for i in range(12):  # more than the broker keeps
            stream.publish(topic, [(b"k", bytes([i]) * 800_000)])

    def down(self) -> None:
        self.lose_patience()
        self._cluster.down()

    def lose_patience(self) -> None:
        """Wait for less than users do, where waiting is all that can come."""
        self._patch.setattr(driver, "_TIMEOUT_S", 2.0)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaPeer]:
    cluster = MockKafka()
    yield KafkaPeer(cluster, monkeypatch)
    cluster.close()


def test_brokers_that_make_no_topic_for_us_are_named(peer: KafkaPeer) -> None:
    """librdkafka's mock is such a one: it does not know the request."""
    peer.lose_patience()
    with pytest.raises(Unavailable, match="do not make the topic 'payments'") as caught:
        peer.client().create("payments", partitions=3)
    assert "with 3 partitions" in (caught.value.hint or "")


class TestKafkaStream(StreamConformance):
    pass
