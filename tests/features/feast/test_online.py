"""The Feast plug-in, driven through stock Feast: Python SDK, async SDK and command line."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.errors import CorruptState, Unavailable

# Feast warns about itself at import and on most calls
pytestmark = pytest.mark.filterwarnings("ignore")
TYPE = "headway.features.online_store.PackedRedisOnlineStore"
NOW = datetime.now(UTC).replace(microsecond=123_456)
LISTS = {"int64": [1, -2], "float32": [0.5, 2.0], "float64": [0.1], "bool": [True, False], "string": ["a", "ü"]}


@pytest.fixture
def repo(tmp_path: Path, online_url: str) -> Iterator[Any]:
    store = a_store(tmp_path, online_url)
    yield store
    online = store._get_provider().online_store
    if online._server is not None:
        online._server.close()


def a_store(folder: Path, url: str, project: str = "shop", **options: Any) -> Any:
    from feast import FeatureStore, RepoConfig

    return FeatureStore(
        config=RepoConfig(
            project=project,
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": TYPE, "connection_string": url, **options},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )


def _online(store: Any) -> Any:
    return store._get_provider().online_store


def a_view(
    folder: Path, name: str = "drivers", ttl: timedelta | None = timedelta(days=1), frame: pd.DataFrame | None = None,
    keys: tuple[str, ...] = ("driver",), fields: dict[str, Any] | None = None,
) -> list[Any]:  # fmt: skip
    """Entities and view over a Parquet file, with a push source `<name>_push`."""
    from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
    from feast.types import Float32, Int64, String

    path = folder / f"{name}.parquet"
    data = rows([(1, 0, 0, 1.0)]) if frame is None else frame
    data.to_parquet(path)
    batch = FileSource(path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created")
    kind = ValueType.INT64 if len(keys) == 1 else ValueType.STRING
    entities = [Entity(name=key, join_keys=[key], value_type=kind) for key in keys]
    wanted = fields or {"trips": Int64, "rating": Float32, "city": String}
    view = FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        schema=[Field(name=field, dtype=dtype) for field, dtype in wanted.items()],
        source=PushSource(name=f"{name}_push", batch_source=batch),
    )
    return [*entities, view]


def rows(changes: list[tuple[int, int, int, float | None]]) -> pd.DataFrame:
    """(driver, seconds before NOW, created seconds before NOW, rating) per row."""
    return pd.DataFrame(
        {
            "driver": [c[0] for c in changes],
            "event_timestamp": [NOW - timedelta(seconds=c[1]) for c in changes],
            "created": [NOW - timedelta(seconds=c[2]) for c in changes],
            "trips": [c[0] * 10 for c in changes],
            "rating": np.array([np.nan if c[3] is None else c[3] for c in changes], np.float32),
            "city": [None if c[3] is None else f"city {c[3]:g}" for c in changes],
        }
    )


REFS = ["drivers:trips", "drivers:rating", "drivers:city"]


def read(store: Any, drivers: list[int], refs: list[str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = store.get_online_features(
        features=refs or REFS, entity_rows=[{"driver": driver} for driver in drivers]
    ).to_dict()
    return found


def statuses(store: Any, drivers: list[int], feature: str = "drivers:rating") -> list[int]:
    response = store.get_online_features(features=[feature], entity_rows=[{"driver": d} for d in drivers])
    names = list(response.proto.metadata.feature_names.val)
    return list(response.proto.results[names.index(feature.split(":")[1])].statuses)


def test_written_pushed_and_materialised_rows_are_read_sync_and_async(tmp_path: Path, repo: Any) -> None:
    from feast.data_source import PushMode

    repo.apply(a_view(tmp_path, frame=rows([(1, 60, 60, 1.0), (2, 90, 90, 2.0), (2, 30, 30, 2.5)])))
    repo.materialize(NOW - timedelta(hours=1), NOW + timedelta(seconds=1))
    assert read(repo, [1, 2])["rating"] == [1.0, 2.5]
    repo.write_to_online_store("drivers", rows([(3, 5, 5, 3.0)]))
    repo.push("drivers_push", rows([(1, 4, 4, 4.5)]), to=PushMode.ONLINE)

    async def go() -> dict[str, Any]:
        await repo.push_async("drivers_push", rows([(4, 4, 4, None)]), to=PushMode.ONLINE)
        found = await repo.get_online_features_async(
            features=REFS, entity_rows=[{"driver": d} for d in (1, 2, 3, 4, 5)]
        )
        await _online(repo).close()
        result: dict[str, Any] = found.to_dict()
        return result

    expected = {
        "driver": [1, 2, 3, 4, 5],
        "trips": [10, 20, 30, 40, None],
        "rating": [4.5, 2.5, 3.0, None, None],
        "city": ["city 4.5", "city 2.5", "city 3", None, None],
    }
    assert asyncio.run(go()) == read(repo, [1, 2, 3, 4, 5]) == expected


def test_event_times_come_back_to_the_microsecond(tmp_path: Path, repo: Any) -> None:
    *_, view = a_view(tmp_path)
    repo.apply(a_view(tmp_path))
    repo.write_to_online_store("drivers", rows([(1, 5, 5, 3.0)]))
    (found,) = _online(repo).online_read(repo.config, view, [a_key("driver", 1)], ["rating"])
    assert found[0] == NOW - timedelta(seconds=5)
    assert list(found[1]) == ["rating"]


def test_what_is_missing_or_expired_is_not_found(tmp_path: Path, repo: Any) -> None:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    repo.apply([*a_view(tmp_path), *a_view(tmp_path, "zero", ttl=timedelta(0)), *a_view(tmp_path, "ever", ttl=None)])
    old = 3 * 86_400
    for name in ("drivers", "zero", "ever"):
        repo.write_to_online_store(name, rows([(1, old, old, 1.0), (2, 60, 60, None)]))
    present, missing = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    assert statuses(repo, [1, 2, 9]) == [missing, present, missing]
    assert statuses(repo, [1, 2, 9], "zero:rating") == [present, present, missing]
    assert statuses(repo, [1, 2, 9], "ever:rating") == [present, present, missing]
    *_, view = a_view(tmp_path)
    assert _online(repo).online_read(repo.config, view, [a_key("driver", 9)]) == [(None, None)]


def test_the_bound_of_the_ttl_is_inclusive(tmp_path: Path, repo: Any) -> None:
    from headway.features.feast.online import PackedRedisOnlineStore

    *_, view = a_view(tmp_path)
    clock = ManualClock(int(NOW.timestamp()) * 1_000_000 + 123_456)
    online = PackedRedisOnlineStore(clock)
    online.online_write_batch(repo.config, view, [(a_key("driver", 1), {}, NOW - timedelta(days=1), None)], None)
    key = a_key("driver", 1)
    assert online.online_read(repo.config, view, [key])[0][0] == NOW - timedelta(days=1)
    clock.advance(1)
    assert online.online_read(repo.config, view, [key]) == [(None, None)]
    online.teardown(repo.config, [view], [])


def test_several_views_partial_features_and_full_names(tmp_path: Path, repo: Any) -> None:
    repo.apply([*a_view(tmp_path), *a_view(tmp_path, "other")])
    repo.write_to_online_store("drivers", rows([(1, 5, 5, 1.0), (2, 5, 5, 2.0)]))
    repo.write_to_online_store("other", rows([(2, 5, 5, 7.0)]))
    found = repo.get_online_features(
        features=["drivers:rating", "other:rating", "other:city"],
        entity_rows=[{"driver": 2}, {"driver": 1}, {"driver": 2}],
        full_feature_names=True,
    ).to_dict()
    assert found["drivers__rating"] == [2.0, 1.0, 2.0]
    assert found["other__rating"] == [7.0, None, 7.0]
    assert found["other__city"] == ["city 7", None, "city 7"]


def test_composite_keys_do_not_collide(tmp_path: Path, repo: Any) -> None:
    pairs = [("1", "11"), ("11", "1"), ("111", ""), ("", "111")]
    data = pd.DataFrame(
        {
            "left": [p[0] for p in pairs],
            "right": [p[1] for p in pairs],
            "event_timestamp": [NOW] * 4,
            "created": [NOW] * 4,
            "trips": range(4),
            "rating": np.zeros(4, np.float32),
            "city": ["x"] * 4,
        }
    )
    repo.apply(a_view(tmp_path, "pairs", frame=data, keys=("left", "right")))
    repo.write_to_online_store("pairs", data)
    for order in (("left", "right"), ("right", "left")):
        asked = [{name: dict(zip(("left", "right"), pair, strict=True))[name] for name in order} for pair in pairs]
        assert repo.get_online_features(features=["pairs:trips"], entity_rows=asked).to_dict()["trips"] == [0, 1, 2, 3]


def test_types_are_kept(tmp_path: Path, repo: Any) -> None:
    from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

    plain = {"i4": Int32, "i8": Int64, "f4": Float32, "f8": Float64, "b": Bool, "s": String, "raw": Bytes}
    lists = {"li": Array(Int64), "lf": Array(Float32), "ld": Array(Float64), "lb": Array(Bool), "ls": Array(String)}
    data = pd.DataFrame(
        {
            "driver": [1],
            "event_timestamp": [NOW],
            "created": [NOW],
            "i4": np.array([-7], np.int32),
            "i8": [2**62],
            "f4": np.array([0.1], np.float32),
            "f8": [0.1],
            "b": [True],
            "s": ["grüß"],
            "raw": [b"\x00\xff"],
            "at": [NOW],
            **{name: [LISTS[key]] for name, key in zip(lists, LISTS, strict=True)},
        }
    )
    fields = {**plain, "at": UnixTimestamp, **lists}
    repo.apply(a_view(tmp_path, "typed", frame=data, fields=fields))
    repo.write_to_online_store("typed", data)
    found = repo.get_online_features(
        features=[f"typed:{name}" for name in fields], entity_rows=[{"driver": 1}]
    ).to_dict()
    for name in plain:
        assert found[name] == [data[name][0]], name
        assert type(found[name][0]) in (int, float, bool, str, bytes)
    assert found["at"][0].timestamp() == int(NOW.timestamp())
    for name in lists:
        assert list(found[name][0]) == data[name][0], name


def _values() -> st.SearchStrategy[dict[str, Any]]:
    whole, small = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)
    real, single = st.floats(allow_nan=False), st.floats(width=32, allow_nan=False)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "int32": small, "int64": whole, "double": real, "float": single, "bool": st.booleans(),
        "unix_timestamp": whole, "string": st.text(max_size=5), "bytes": st.binary(max_size=5),
    }  # fmt: skip

    def alone(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return values.map(lambda value: {f"{kind}_val": value})

    def listed(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return st.lists(values, max_size=4).map(lambda several: {f"{kind}_list_val": {"val": several}})

    one = [alone(kind, values) for kind, values in kinds.items()]
    many = [listed(kind, values) for kind, values in kinds.items()]
    exotic: list[st.SearchStrategy[dict[str, Any]]] = [
        st.just({}), st.just({"null_val": 0}), st.text(max_size=5).map(lambda v: {"json_val": v}),
        st.lists(whole, max_size=3).map(lambda v: {"int64_set_val": {"val": v}}),
        st.text(max_size=3).map(lambda v: {"map_val": {"val": {"k": {"string_val": v}}}}),
    ]  # fmt: skip
    return st.one_of(*one, *many, *exotic)


@given(st.dictionaries(st.text(min_size=1, max_size=3), _values(), max_size=6), st.integers(-(2**50), 2**52))
@settings(max_examples=300, deadline=None)
def test_every_value_survives_packing(given_values: dict[str, dict[str, Any]], event: int) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    from headway.features.feast import values as feast_values

    values = {name: Value(**fields) for name, fields in given_values.items()}
    names = [*values, "absent"]
    packed = feast_values.pack(names, values, event, event)
    assert feast_values.event_time(packed, b"k") == event
    found = feast_values.unpack(names, packed)
    assert found.pop("absent") == Value()
    assert found == values
    assert {name: value.WhichOneof("val") for name, value in found.items()} == {
        name: value.WhichOneof("val") for name, value in values.items()
    }


def test_out_of_order_and_concurrent_writes_keep_the_newest(tmp_path: Path, repo: Any, online_url: str) -> None:
    from headway.features.feast.online import PackedRedisOnlineStore

    *_, view = a_view(tmp_path)
    from feast.protos.feast.types.Value_pb2 import Value

    changes = [(second, created) for second in range(30) for created in (0, 1)]
    batch = [
        (
            a_key("driver", 1),
            {"trips": Value(int64_val=s * 10 + c)},
            NOW - timedelta(seconds=s),
            NOW + timedelta(seconds=c),
        )
        for s, c in changes
    ]
    failures: list[BaseException] = []

    def write(number: int) -> None:
        mine = batch[:]
        random.Random(number).shuffle(mine)
        online = PackedRedisOnlineStore()
        try:
            for begin in range(0, len(mine), 7):
                if number % 2:
                    asyncio.run(_written(online, repo.config, view, mine[begin : begin + 7]))
                else:
                    online.online_write_batch(repo.config, view, mine[begin : begin + 7], None)
        except BaseException as error:
            failures.append(error)
        if online._server is not None:
            online._server.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    (found,) = _online(repo).online_read(repo.config, view, [a_key("driver", 1)], ["trips"])
    assert found[0] == NOW
    assert found[1]["trips"].int64_val == 1


def test_of_rows_with_equal_times_the_last_counts(tmp_path: Path, repo: Any) -> None:
    repo.apply(a_view(tmp_path))
    repo.write_to_online_store("drivers", rows([(1, 5, 5, 1.0), (1, 5, 5, 2.0)]))
    assert read(repo, [1])["rating"] == [2.0]
    repo.write_to_online_store("drivers", rows([(1, 5, 5, 3.0)]))
    assert read(repo, [1])["rating"] == [3.0]
    repo.write_to_online_store("drivers", rows([(1, 5, 6, 4.0), (1, 6, 0, 5.0)]))
    assert read(repo, [1])["rating"] == [3.0]


async def _written(online: Any, config: Any, view: Any, part: list[Any]) -> None:
    seen: list[int] = []
    await online.online_write_batch_async(config, view, part, seen.append)
    assert seen == [len(part)]
    await online.close()


def test_rows_outlive_a_change_of_the_view(tmp_path: Path, repo: Any, online_url: str) -> None:
    from feast.types import Float32, Int64

    repo.apply(a_view(tmp_path))
    repo.write_to_online_store("drivers", rows([(1, 5, 5, 1.5)]))
    changed = a_store(tmp_path, online_url)
    changed.apply(a_view(tmp_path, fields={"rating": Float32, "more": Int64}))
    found = read(changed, [1], ["drivers:rating", "drivers:more"])
    assert (found["rating"], found["more"]) == ([1.5], [None])
    client = redis.Redis.from_url(online_url)
    client.unlink(*client.keys("headway:s:*"))
    fresh = a_store(tmp_path, online_url)
    with pytest.raises(CorruptState, match="materialize"):
        read(fresh, [1], ["drivers:rating"])
    client.close()


def test_views_that_go_take_their_rows_along_and_projects_do_not_meet(
    tmp_path: Path, repo: Any, online_url: str
) -> None:
    (tmp_path / "two").mkdir()
    other = a_store(tmp_path / "two", online_url, project="two")
    both = [*a_view(tmp_path), *a_view(tmp_path, "other")]
    repo.apply(both)
    other.apply(a_view(tmp_path))
    for name in ("drivers", "other"):
        repo.write_to_online_store(name, rows([(1, 5, 5, 1.0), (2, 5, 5, 2.0)]))
    assert read(other, [1])["rating"] == [None]
    other.write_to_online_store("drivers", rows([(1, 5, 5, 9.0)]))
    repo.apply([], objects_to_delete=[both[-1]], partial=False)
    client = redis.Redis.from_url(online_url)
    assert len(client.keys("headway:o:shop:drivers:*")) == 2
    assert client.keys("headway:?:shop:other:*") == []
    repo.teardown()
    assert client.keys("headway:?:shop:*") == []
    assert read(other, [1])["rating"] == [9.0]
    client.close()
    assert _online(other).plan(other.config, None) == []


def test_keys_expire_after_the_ttl(tmp_path: Path, repo: Any, online_url: str) -> None:
    from headway.features.status import SLACK

    repo.apply([*a_view(tmp_path), *a_view(tmp_path, "ever", ttl=None)])
    for name in ("drivers", "ever"):
        repo.write_to_online_store(name, rows([(1, 60, 60, 1.0)]))
    client = redis.Redis.from_url(online_url)
    (mine,), (kept,) = client.keys("headway:o:shop:drivers:*"), client.keys("headway:o:shop:ever:*")
    until = NOW - timedelta(seconds=60) + timedelta(days=1, microseconds=SLACK)
    assert client.execute_command("PEXPIRETIME", mine) == int(until.timestamp() * 1_000)
    assert client.execute_command("PEXPIRETIME", kept) == -1
    client.close()


def test_foreign_values_are_reported_and_an_absent_server_too(tmp_path: Path, repo: Any, online_url: str) -> None:
    *_, view = a_view(tmp_path)
    repo.apply(a_view(tmp_path))
    repo.write_to_online_store("drivers", rows([(1, 60, 60, 1.0)]))
    client = redis.Redis.from_url(online_url)
    (name,) = client.keys("headway:o:*")
    client.set(name, b"x")
    for act in (lambda: read(repo, [1]), lambda: repo.write_to_online_store("drivers", rows([(1, 5, 5, 1.0)]))):
        with pytest.raises(CorruptState, match="PackedRedisOnlineStore"):
            act()
    assert client.get(name) == b"x"
    client.close()
    nowhere = a_store(tmp_path, f"unix://{tmp_path}/nothing")
    with pytest.raises(Unavailable):
        _online(nowhere).online_read(nowhere.config, view, [a_key("driver", 1)])


def test_the_class_is_found_without_importing_feast_for_replicas() -> None:
    code = "import sys, headway.features.online_store; print('feast' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def a_key(name: str, value: int) -> Any:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[name], entity_values=[Value(int64_val=value)])
