"""Both Feast plug-ins in one repository: rows from files to the online store, pushed rows, types, versions."""

from __future__ import annotations

import asyncio
import decimal
import json
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis
from feast import (
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    PushSource,
    StreamFeatureView,
)
from feast.cli.cli import cli
from feast.data_source import PushMode
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    Float32,
    Float64,
    Int32,
    Int64,
    Map,
    Set,
    String,
    UnixTimestamp,
    Uuid,
)
from feast.value_type import ValueType

from tests.features.feast.universe import (
    DRIVER,
    END,
    LOCATION,
    a_simple_view,
    a_store,
    frames,
    online_of,
    the_source,
)

# Feast warns about itself at import and on most calls
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("pull_latest", [True, False])
def test_both_stores_agree_after_each_step_of_materialisation(
    tmp_path: Path, online_url: str, pull_latest: bool
) -> None:
    store = a_store(tmp_path, online_url, materialization={"pull_latest_features": pull_latest})
    view, _ = a_simple_view(tmp_path, [0.1, None, 0.3, 4.0, 5.0], Float32)
    store.apply([DRIVER, view])

    def value(driver: int, at: datetime) -> tuple[Any, Any]:
        ref = ["simple:value"]
        online = store.get_online_features(ref, [{"driver_id": driver}], full_feature_names=True).to_dict()
        frame = pd.DataFrame({"driver_id": [driver], "event_timestamp": [at]})
        (offline,) = store.get_historical_features(frame, ref, full_feature_names=True).to_df()["simple__value"]
        return online["simple__value"][0], None if pd.isna(offline) else offline

    split = END - timedelta(hours=1, seconds=1)
    store.materialize(END - timedelta(hours=5), split.replace(tzinfo=None))
    assert value(1, split) == (pytest.approx(0.3), pytest.approx(0.3))
    assert value(2, split) == (None, None)
    assert value(3, split) == (4.0, 4.0)
    store.materialize_incremental(END)
    assert value(3, END) == (5.0, 5.0)
    assert value(2, END) == (None, None)
    store.materialize(END - timedelta(hours=5), split)  # an older range again takes nothing back
    assert value(3, END) == (5.0, 5.0)
    online_of(store)._server.close()


DAY = datetime(1980, 1, 2, tzinfo=UTC)


TYPES: dict[str, tuple[Any, list[Any], Any, Any]] = {
    "int32": (Int32, [np.int32(n) for n in (1, 2, 3, 4, 5)], int, pa.types.is_signed_integer),
    "int64": (Int64, [1, 2, 3, 4, 2**60], int, pa.types.is_signed_integer),
    "float": (Float32, [1.0, None, 3.0, 4.0, 5.0], float, pa.types.is_floating),
    "double": (Float64, [1.0, None, 3.0, 4.0, 0.1], float, pa.types.is_float64),
    "bool": (Bool, [True, None, False, True, False], bool, pa.types.is_boolean),
    "text": (String, ["1", None, "", "4", "ü"], str, pa.types.is_string),
    "bytes": (Bytes, [b"1", None, b"", b"4", b"\x00\xff"], bytes, pa.types.is_binary),
    "datetime": (UnixTimestamp, [DAY, None, DAY, DAY, DAY], datetime, pa.types.is_timestamp),
}


@pytest.mark.parametrize("shape", ["one", "list", "with empty lists"])
@pytest.mark.parametrize("kind", TYPES)
def test_types_are_the_same_offline_and_online(store: FeatureStore, tmp_path: Path, kind: str, shape: str) -> None:
    dtype, given, python, arrow = TYPES[kind]
    if shape == "list":
        given = [None if value is None else [value, value] for value in given]
    elif shape != "one":
        given = [*([] for _ in given[:-1]), given[-1:]]
    view, _ = a_simple_view(tmp_path, given, dtype if shape == "one" else Array(dtype))
    store.apply([DRIVER, view])
    frame = pd.DataFrame({"driver_id": [1, 3, 2, 9], "ts": [END - timedelta(hours=h) for h in (3, 1, 0, 0)]})
    job = store.get_historical_features(frame, ["simple:value"])
    column = job.to_arrow()["value"]
    inner = column.type if shape == "one" else column.type.value_type
    assert arrow(inner)
    wanted = [given[2], given[4], given[1], None]
    assert column.to_pylist() == wanted
    store.materialize(END - timedelta(hours=5), END)
    online = store.get_online_features(["simple:value"], [{"driver_id": d} for d in (1, 3, 2, 9)]).to_dict()["value"]
    for found, value in zip(online, wanted, strict=True):
        if value is None:
            assert found is None
            continue
        assert (list(found) if shape != "one" else found) == value
        for item in found if shape != "one" else [found]:
            assert isinstance(item, python)


NESTED: dict[str, tuple[Any, list[Any], list[Any], list[Any]]] = {
    "lists of lists": (Array(Array(Int64)), [[[1, 2], []], [[3]], None, [[1]], [[5]]], [None, [[3]]], [None, [[3]]]),
    "sets": (Set(Int64), [[1, 2], [3], None, [], [5]], [None, [3]], [None, {3}]),
    "maps": (Map, [{"a": "b"}, {"a": "d"}, None, {}, {"a": "y"}], [None, {"a": "d"}], [None, {"a": "d"}]),
    "decimals": (Decimal, [decimal.Decimal("1.5")] * 5, [decimal.Decimal("1.5")] * 2, [decimal.Decimal("1.5")] * 2),
    "ids": (Uuid, [str(uuid.UUID(int=n)) for n in range(5)], [str(uuid.UUID(int=n)) for n in (2, 1)],
            [uuid.UUID(int=n) for n in (2, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", NESTED)
def test_nested_types_come_back(store: FeatureStore, tmp_path: Path, kind: str) -> None:
    dtype, given, offline, online = NESTED[kind]
    view, _ = a_simple_view(tmp_path, given, dtype)
    store.apply([DRIVER, view])
    frame = pd.DataFrame({"driver_id": [1, 2, 9], "ts": [END] * 3})
    found = store.get_historical_features(frame, ["simple:value"]).to_arrow()["value"].to_pylist()
    assert found == [*offline, None]
    store.materialize(END - timedelta(hours=5), END)
    rows = [{"driver_id": driver} for driver in (1, 2, 9)]
    assert store.get_online_features(["simple:value"], rows).to_dict()["value"] == [*online, None]


@pytest.mark.parametrize(("dtype", "keys"), [(Int64, (1, 2, 1, 3, 3)), (String, ("1", "2", "1", "3", "3"))])
def test_entities_and_features_are_inferred_from_files(
    store: FeatureStore, tmp_path: Path, dtype: Any, keys: tuple[Any, ...]
) -> None:
    view, frame = a_simple_view(tmp_path, [1, 2, 3, 4, 5], Int32, keys=keys)
    kind = ValueType.STRING if dtype == String else ValueType.INT64
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=kind)
    bare = FeatureView(name="simple", entities=[driver], ttl=timedelta(days=5), source=view.batch_source)
    store.apply([driver, bare])
    (column,) = store.get_feature_view("simple").entity_columns
    assert (column.name, column.dtype) == ("driver_id", dtype)
    assert [(field.name, field.dtype) for field in store.get_feature_view("simple").features] == [("value", Int64)]
    store.materialize(END - timedelta(hours=5), END)
    found = store.get_online_features(["simple:value"], [{"driver_id": keys[0]}, {"driver_id": keys[3]}])
    assert found.to_dict()["value"] == [3, 5]
    assert len(frame) == 5


def test_older_writes_are_ignored_and_materialisation_goes_on(store: FeatureStore, tmp_path: Path) -> None:
    now = pd.Timestamp.now("UTC").round("ms")
    hour_ago, later = now - timedelta(hours=1), now + timedelta(seconds=1)

    def a_batch(*rows: tuple[int, str, Any]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=["driver_id", "text", "event_timestamp"])

    origin = the_source(tmp_path, "texts", a_batch((1, "old", hour_ago), (2, "two", now), (3, "three", now)))
    texts = FeatureView(
        name="texts",
        entities=[DRIVER],
        ttl=timedelta(hours=2),
        source=origin,
        schema=[Field(name="text", dtype=String)],
    )
    store.apply([DRIVER, texts])

    def read() -> list[Any]:
        found: list[Any] = store.get_online_features(["texts:text"], [{"driver_id": d} for d in (1, 2, 3)]).to_dict()[
            "text"
        ]
        return found

    store.write_to_online_store("texts", a_batch((1, "hi", now)))
    store.write_to_online_store("texts", a_batch((1, "bye", hour_ago), (2, "a", hour_ago), (3, "b", hour_ago)))
    assert read() == ["hi", "a", "b"]
    store.write_to_online_store("texts", a_batch((1, "latest", later)))
    store.materialize(datetime.now() - timedelta(hours=12), datetime.now(UTC) + timedelta(minutes=1))
    assert read() == ["latest", "two", "three"]


def test_event_times_are_part_of_the_answer(store: FeatureStore, tmp_path: Path) -> None:
    view, _ = a_simple_view(tmp_path, [1.0, 2.0, 3.0, 4.0, 5.0], Float64)
    store.apply([DRIVER, view])
    store.materialize(END - timedelta(hours=5), END)
    rows = [{"driver_id": driver} for driver in (1, 3)]
    wanted = [int((END - timedelta(hours=h)).timestamp()) for h in (3, 1)]
    assert store.get_online_features(["simple:value"], rows).to_df(True)["value__ts"].tolist() == wanted

    async def later() -> list[int]:
        await store.initialize()
        found = await store.get_online_features_async(["simple:value"], rows)
        await store.close()
        result: list[int] = found.to_df(True)["value__ts"].tolist()
        return result

    assert asyncio.run(later()) == wanted


def test_a_view_that_goes_leaves_others_of_its_entity_alone(store: FeatureStore, tmp_path: Path) -> None:
    first, _ = a_simple_view(tmp_path, [1.0, 2.0, 3.0, 4.0, 5.0], Float64, "first")
    second, _ = a_simple_view(tmp_path, [6.0, 7.0, 8.0, 9.0, 10.0], Float64, "second")
    store.apply([DRIVER, first, second])
    store.materialize(END - timedelta(hours=5), END)
    rows = [{"driver_id": driver} for driver in (1, 2, 3)]
    store.apply([first], objects_to_delete=[second], partial=False)
    assert store.get_online_features(["first:value"], rows).to_dict()["value"] == [3.0, 2.0, 5.0]
    store.apply([], objects_to_delete=[first], partial=False)
    store.apply([DRIVER, first])
    assert store.get_online_features(["first:value"], rows).to_dict()["value"] == [None] * 3


def test_pushed_rows_go_where_they_are_told(store: FeatureStore, tmp_path: Path) -> None:
    origin = the_source(tmp_path, "location_stats", frames()["location_stats"])
    pushed = StreamFeatureView(
        name="pushed",
        entities=[LOCATION],
        schema=[Field(name="temperature", dtype=Int32)],
        ttl=timedelta(days=2),
        source=PushSource(name="push", batch_source=origin),
    )
    store.apply([LOCATION, pushed])
    now = pd.Timestamp.now("UTC").round("ms")
    frame = pd.DataFrame({"event_timestamp": [now], "location_id": [1], "temperature": [77], "created": [now]})
    labels = frame[["location_id", "event_timestamp"]]

    def offline() -> Any:
        return store.get_historical_features(labels, ["pushed:temperature"]).to_df()["temperature"][0]

    def online() -> Any:
        return store.get_online_features(["pushed:temperature"], [{"location_id": 1}]).to_dict()["temperature"][0]

    before = offline()
    assert before != 77
    store.push("push", frame)
    assert (offline(), online()) == (before, 77)
    store.push("push", frame.assign(temperature=78), to=PushMode.OFFLINE)
    assert (offline(), online()) == (78, 77)
    store.push("push", frame.assign(temperature=79), to=PushMode.ONLINE_AND_OFFLINE)
    assert (offline(), online()) == (79, 79)


def test_versions_of_a_view_do_not_meet(tmp_path: Path, online_url: str) -> None:
    registry = {"path": str(tmp_path / "registry.db"), "enable_online_feature_view_versioning": True}
    store = a_store(tmp_path, online_url, registry=registry)
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    online, key = online_of(store), EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=1)])

    def a_version(number: int | None, tag: int | None = None) -> FeatureView:
        view, _ = a_simple_view(tmp_path, [1, 2, 3, 4, 5], Int64)
        view.current_version_number = number
        if tag is not None:
            view.projection.version_tag = tag
        return view

    for number, value in ((1, 10), (2, 20)):
        online.online_write_batch(
            store.config, a_version(number), [(key, {"value": Value(int64_val=value)}, END, END)], None
        )

    def read(view: FeatureView) -> int | None:
        ((_, row),) = online.online_read(store.config, view, [key], ["value"])
        return None if row is None else int(row["value"].int64_val)

    assert [read(a_version(n)) for n in (1, 2, 3)] == [10, 20, None]
    assert [read(a_version(None, tag)) for tag in (1, 2)] == [10, 20]
    online.update(store.config, [a_version(1)], [a_version(2)], [], [], False)
    assert [read(a_version(n)) for n in (1, 2)] == [None, 20]
    online.teardown(store.config, [a_version(2)], [])


@pytest.mark.slow
def test_the_command_line_of_a_stock_repository(
    tmp_path: Path, online_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = the_source(tmp_path, "rides", pd.DataFrame(
        {
            "driver_id": [7, 7, 8],
            "event_timestamp": [END - timedelta(hours=h) for h in (3, 1, 1)],
            "created": [END] * 3,
            "rating": np.array([3.0, 4.0, 5.0], np.float32),
            "trips": [30, 40, 50],
        }
    ))  # fmt: skip
    (tmp_path / "feature_store.yaml").write_text(
        "project: cli\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        "offline_store:\n  type: headway.features.offline_store.RayPointInTimeOfflineStore\n"
        "online_store:\n  type: headway.features.online_store.PackedRedisOnlineStore\n"
        f"  connection_string: {online_url}\n"
    )
    (tmp_path / "definitions.py").write_text(
        "from datetime import timedelta\n"
        "from feast import Entity, FeatureView, Field, FileSource, ValueType\n"
        "from feast.types import Float32, Int64\n"
        "driver = Entity(name='driver', join_keys=['driver_id'], value_type=ValueType.INT64)\n"
        f"source = FileSource(path={str(origin.path)!r}, timestamp_field='event_timestamp',"
        " created_timestamp_column='created')\n"
        "view = FeatureView(name='rides', entities=[driver], ttl=timedelta(days=1), source=source,\n"
        "                   schema=[Field(name='trips', dtype=Int64), Field(name='rating', dtype=Float32)])\n"
    )

    command = [str(Path(sys.executable).with_name("feast")), "apply"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    def feast(*arguments: str) -> str:
        """The same command line in this process, which has Feast imported already."""
        capsys.readouterr()
        cli.main(["-c", str(tmp_path), *arguments], standalone_mode=False)
        return capsys.readouterr().out

    client = redis.Redis.from_url(online_url)
    feast("materialize", (END - timedelta(hours=4)).isoformat(), (END - timedelta(hours=2)).isoformat())
    assert len(client.keys("headway:o:cli:rides:*")) == 1
    feast("materialize-incremental", END.isoformat())
    assert len(client.keys("headway:o:cli:rides:*")) == 2
    told = feast("get-online-features", "-e", "driver_id=7", "-f", "rides:rating", "-f", "rides:trips")
    assert "4.0" in told
    assert "40" in told
    labels = json.dumps([{"driver_id": 7, "event_timestamp": (END - timedelta(hours=2)).isoformat()}])
    assert "30" in feast("get-historical-features", "-d", labels, "-f", "rides:trips")
    feast("teardown")
    assert client.keys("headway:?:cli:*") == []
    client.close()
