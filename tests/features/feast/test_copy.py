"""Window views read by stock Feast clients, as of the write."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis

from headway.core.clock import ManualClock
from headway.core.errors import Forbidden, NotFound, Unavailable
from headway.core.progress import RecordedProgress
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.core.types import Principal
from headway.features.aggregates import count, mean
from headway.features.catalogue.registry import apply, feast_view, registry_path
from headway.features.definitions import Entity, EventSource, FeatureService, WindowView
from headway.features.feast.copy import copy
from headway.features.online_store import OnlineStore
from headway.governance.audit_event import MemoryAudit
from tests.conftest import ROOT
from tests.features.oracle import CARD, SOURCE, Event
from tests.features.samples import read, table

# Feast warns about itself at import and on most calls
pytestmark = pytest.mark.filterwarnings("ignore")
VIEW = WindowView(
    name="recent", entity=CARD, source=SOURCE, aggregates=(*count("1d", "7d"), *mean("amount", "1d", scale=100))
)
WRITER = Principal(sub="w", kind="ci", scopes=frozenset({"features:write"}), purpose="testing", expires=2**60)
SERVICE = FeatureService(name="s", views=(VIEW,), request={})


@pytest.fixture
def clock() -> ManualClock:
    """The server's own time, because it lets fields go by it."""
    return ManualClock(int(time.time() * 1e6))


@pytest.fixture
def at(tmp_path: Path, online_url: str, clock: ManualClock) -> Settings:
    settings = Settings(home=tmp_path, redis_features_url=online_url)
    apply([SERVICE], settings, WRITER, MemoryAudit(clock))
    return settings


def stock(settings: Settings) -> Any:
    """A client that knows nothing of Headway: the registry and Feast's own Redis store."""
    from feast import FeatureStore, RepoConfig

    store = FeatureStore(
        config=RepoConfig(
            project="headway",
            provider="local",
            registry=str(registry_path(settings)),
            online_store={"type": "redis", "connection_string": "localhost:1"},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )
    store._get_provider().online_store._client = redis.Redis.from_url(settings.redis_features_url)
    return store


def test_stock_clients_read_window_views_as_of_the_write(at: Settings, clock: ManualClock) -> None:
    t = clock.now()
    online = OnlineStore(at.redis_features_url, clock=clock)
    history = [Event(1, t - DAY // 2, t - DAY // 2, 1, 500), Event(1, t - 3 * DAY, t - 3 * DAY, 2, 900)]
    online.write(VIEW, table([*history, Event(2, t - 2 * DAY, t - 2 * DAY, 3, 700)]))
    assert copy(VIEW, at, clock) == 2
    client = stock(at)
    refs = [f"recent:{name}" for name in VIEW.features]

    def theirs() -> dict[str, list[Any]]:
        rows = client.get_online_features(refs, [{"card": card} for card in (1, 2, 3)]).to_dict()
        return {name: rows[name] for name in VIEW.features}

    def ours(moment: int) -> dict[str, list[Any]]:
        found = read(SERVICE, at.redis_features_url, [1, 2], [moment] * 2).columns
        whole = {name: found[name].tolist() for name in VIEW.features}
        return {name: [None if np.isnan(value) else value for value in values] for name, values in whole.items()}

    before = theirs()
    assert {name: values[:2] for name, values in before.items()} == ours(t)
    assert {values[2] for values in before.values()} == {None}
    clock.advance(DAY)
    assert ours(clock.now()) != ours(t)
    assert theirs() == before  # as of the write
    assert copy(VIEW, at, clock) == 2
    assert {name: values[:2] for name, values in theirs().items()} == ours(clock.now())
    online.close()
    client._get_provider().online_store._client.close()


def test_the_registry_says_that_values_are_as_of_the_write(at: Settings) -> None:
    assert feast_view("recent", at).tags["as_of"] == "write"


def test_what_is_not_there_is_told(at: Settings, clock: ManualClock, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="recent"):
        copy(VIEW, Settings(home=tmp_path / "other", redis_features_url=at.redis_features_url), clock)
    with pytest.raises(Unavailable):
        copy(VIEW, Settings(home=at.home, redis_features_url=f"unix://{tmp_path}/nothing"), clock)


def test_composite_keys_reach_stock_clients(tmp_path: Path, online_url: str, clock: ManualClock) -> None:
    pair = Entity(name="pair", key=("card", "shop"), dtype=("int64", "string"))
    source = EventSource(
        name="visits",
        columns={"payment": "int64", "card": "int64", "shop": "string", "amount": "float64"},
        id="payment",
        bucket_by="card",
        buckets=4,
        purposes=("testing",),
    )
    view = WindowView(name="visits", entity=pair, source=source, aggregates=count("1d"))
    settings = Settings(home=tmp_path, redis_features_url=online_url)
    apply([FeatureService(name="s", views=(view,), request={})], settings, WRITER, MemoryAudit(clock))
    online, t = OnlineStore(online_url, clock=clock), clock.now()
    events = {"payment": [1, 2, 3], "card": [1, 1, 2], "shop": ["a:b", "a:b", "c\\"], "amount": [1.0] * 3}
    online.write(view, pa.table({**events, "event_time": [t - 5] * 3, "known_time": [t - 5] * 3}))
    online.close()
    assert copy(view, settings, clock) == 2
    client = stock(settings)
    rows = [{"card": 1, "shop": "a:b"}, {"card": 2, "shop": "c\\"}, {"card": 2, "shop": "a:b"}]
    (name,) = view.features
    assert client.get_online_features([f"visits:{name}"], rows).to_dict()[name] == [2.0, 1.0, None]
    client._get_provider().online_store._client.close()


def test_the_act_needs_its_scope_and_is_recorded(tmp_path: Path, online_url: str, analyst: Principal) -> None:
    from headway.cluster.compose import Installation
    from headway.cluster.features import copy as copy_use_case

    settings = Settings(home=tmp_path, project=ROOT, redis_features_url=online_url)
    installation, progress = Installation(settings, writer="test"), RecordedProgress()
    service = installation.service("fraud")
    apply([service], settings, WRITER, installation.audit)
    with pytest.raises(Forbidden):
        copy_use_case(installation, "fraud", analyst, progress)
    windows = [view for view in service.stored if isinstance(view, WindowView)]
    view, t = windows[0], installation.clock.now()
    columns: dict[str, list[Any]] = {
        name: [7 if dtype == "int64" else "x" if dtype == "string" else dtype == "bool" if dtype == "bool" else 1.0]
        for name, dtype in view.source.columns.items()
    }
    installation.online.write(view, pa.table({**columns, "event_time": [t - 5], "known_time": [t - 5]}))
    found = copy_use_case(installation, "fraud", WRITER, progress)
    assert found == {each.name: int(each is view) for each in windows}
    assert [stage.name for stage in progress.stages] == [f"copy {each.name}" for each in windows]
    client = redis.Redis.from_url(online_url)
    assert len(client.keys(f"headway:o:headway:{view.name}:*")) == 1
    client.close()
    installation.online.close()
