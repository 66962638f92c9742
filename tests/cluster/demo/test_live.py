from __future__ import annotations

import msgspec
import pytest

from headway.cluster.demo import live
from headway.cluster.demo.live import send
from headway.core.errors import Unavailable
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import TopicFull, TopicGone, partition_of
from tests.cluster.demo.conftest import tables, visits
from tests.features.conftest import online_url, redis_url

__all__ = ["online_url", "redis_url"]


def test_every_row_is_a_message_and_those_of_an_entity_keep_their_order(online_url: str) -> None:
    stream, rows = RedisStream(online_url), dict(tables(48))["visits"]
    topic = stream.create("visits", partitions=3)
    send(stream, visits, rows)
    found = {number: stream.read(topic, number, 0, limit=100) for number in range(3)}
    sent = rows.to_pylist()
    for number, messages in found.items():
        own = [row for row in sent if partition_of(str(row["guest_id"]).encode(), 3) == number]
        assert [msgspec.json.decode(message.value) for message in messages] == own
    assert sum(map(len, found.values())) == 48


def test_a_full_topic_is_waited_for_and_one_that_is_not_there_is_an_error(
    online_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, rows = RedisStream(online_url), dict(tables(48))["visits"]
    with pytest.raises(TopicGone):
        send(stream, visits, rows)
    topic = stream.create("visits", partitions=1, capacity=50)
    send(stream, visits, rows)
    pauses: list[float] = []

    def consume(seconds: float) -> None:
        pauses.append(seconds)
        stream.release(topic, 0, 48)

    monkeypatch.setattr("time.sleep", consume)
    send(stream, visits, rows)
    assert len(pauses) == 1
    assert stream.bounds(topic, 0).end == 96
    monkeypatch.setattr(live, "_FULL_S", -1.0)
    with pytest.raises(TopicFull) as caught:
        send(stream, visits, rows)
    assert isinstance(caught.value, Unavailable)
