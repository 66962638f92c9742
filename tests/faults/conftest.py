from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.features.lake.tables import Location
from headway.features.streams.drivers.redis import RedisStream
from tests.features.lake.troubles import small_disk
from tests.features.streams.world import TOPIC
from tests.features.valkey import DURABLE, Valkey, serving


@pytest.fixture
def lake(tmp_path: Path) -> Location:
    return Location(catalog_uri=f"sqlite:///{tmp_path}/c.db?timeout=0.5", warehouse=f"file://{tmp_path}/w")


@pytest.fixture
def topics() -> Iterator[Valkey]:
    """A durable server for topics and checkpoints, with the topic on it."""
    with serving(*DURABLE) as server:
        RedisStream(server.url).create(TOPIC, partitions=1)
        yield server


@pytest.fixture
def features() -> Iterator[Valkey]:
    """A server for features, which forgets when it is killed."""
    with serving() as server:
        yield server


@pytest.fixture
def small() -> Iterator[Path]:
    with small_disk() as folder:
        yield folder
