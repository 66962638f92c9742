"""A topic of one partition on the tests' Redis-protocol server."""

from __future__ import annotations

import pytest

from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import Topic
from tests.features.streams.world import TOPIC


@pytest.fixture
def stream(online_url: str) -> RedisStream:
    return RedisStream(online_url)


@pytest.fixture
def topic(stream: RedisStream) -> Topic:
    return stream.create(TOPIC, partitions=1)
