from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headway.core.clock import ManualClock
from headway.core.types import Principal
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from tests.features.histories import LIMITS, SHOP, a_history, limits, sales
from tests.features.oracle import SOURCE
from tests.features.samples import table
from tests.features.valkey import DURABLE, Valkey, serving


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis-protocol server on a unix socket of its own."""
    server = Valkey(tmp_path_factory.mktemp("r"))
    server.start()
    yield server.url
    server.kill()


@pytest.fixture
def server() -> Iterator[Valkey]:
    """One for a test that may kill it."""
    with serving() as server:
        yield server


@pytest.fixture
def durable() -> Iterator[Valkey]:
    """One that remembers what it was told, however it is killed."""
    with serving(*DURABLE) as server:
        yield server


@pytest.fixture
def online_url(redis_url: str) -> str:
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    client.close()
    return redis_url


@pytest.fixture
def lake(tmp_path: Path) -> Location:
    return Location(catalog_uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake/warehouse")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000_000_000)


@pytest.fixture
def analyst() -> Principal:
    return Principal(
        sub="ana", kind="human", scopes=frozenset({"data:read"}), purpose="testing", expires=2_000_000_000_000
    )


@pytest.fixture
def reader(lake: Location, clock: ManualClock) -> LakeReader:
    writer = Committer(lake, clock)
    history = a_history(2_000, 1)
    writer.append_many(SOURCE, [(table(history[:900]), "a"), (table(history[900:]), "b")])
    writer.append(SOURCE, table(history[:100]), "redelivered")
    writer.append(SHOP, sales(history), "a")
    return LakeReader(lake, MemoryAudit(clock), clock)


@pytest.fixture
def mixed_reader(reader: LakeReader, lake: Location, clock: ManualClock) -> LakeReader:
    writer, rows = Committer(lake, clock), limits(600, 9)
    writer.append_many(LIMITS, [(rows.slice(0, 200), "a"), (rows.slice(200, 150), "b")])
    writer.append(LIMITS, rows.slice(350), "c")
    return reader
