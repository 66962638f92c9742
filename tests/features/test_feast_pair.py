"""Both Feast plug-ins in one repository, over the data Feast makes for its own tests, against naive oracles."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis
from click.testing import CliRunner
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RepoConfig,
    RequestSource,
    StreamFeatureView,
    driver_test_data,
)
from feast.cli.cli import cli
from feast.data_source import PushMode
from feast.errors import FeatureNameCollisionError, SavedDatasetLocationAlreadyExists
from feast.feature_logging import LOG_TIMESTAMP_FIELD, FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.saved_dataset import SavedDatasetStorage
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Json, Map, String, Struct, UnixTimestamp
from feast.value_type import ValueType

from headway.core.errors import InvalidValue

# Feast warns about itself at import and on most calls
pytestmark = pytest.mark.filterwarnings("ignore")
END = datetime.now(UTC).replace(microsecond=0, second=0, minute=0)
DRIVER, CUSTOMER, LOCATION = (
    Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.INT64)
    for name in ("driver", "customer", "location")
)
KEYS = {
    "driver_stats": ("driver_id",),
    "customer_profile": ("customer_id",),
    "order": ("customer_id", "driver_id"),
    "global_stats": (),
    "field_mapping": (),
}
FEATURES = {
    "driver_stats": ("conv_rate", "avg_daily_trips"),
    "customer_profile": ("current_balance", "avg_passenger_count", "lifetime_trip_count"),
    "order": ("order_is_success",),
    "global_stats": ("num_rides", "avg_ride_length"),
    "field_mapping": ("feature_name",),
}
REFS = [f"{view}:{name}" for view, names in FEATURES.items() for name in names]


def a_store(folder: Path, url: str, **options: Any) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="universe",
            provider="local",
            registry=options.pop("registry", str(folder / "registry.db")),
            repo_path=folder,
            offline_store={"type": "headway.features.offline_store.RayPointInTimeOfflineStore"},
            online_store={
                "type": "headway.features.online_store.PackedRedisOnlineStore",
                "connection_string": url,
            },
            entity_key_serialization_version=3,
            **options,
        )
    )


def online_of(store: FeatureStore) -> Any:
    return store._get_provider().online_store


@pytest.fixture
def store(tmp_path: Path, online_url: str) -> Iterator[FeatureStore]:
    made = a_store(tmp_path, online_url)
    yield made
    if online_of(made)._server is not None:
        online_of(made)._server.close()


@cache
def frames() -> dict[str, pd.DataFrame]:
    """Feast's test data over three days: orders with naive and zoned times, drivers with maps, JSON and structs."""
    np.random.seed(3)
    start = END - timedelta(days=3)
    customers, drivers, places = list(range(1001, 1020)), list(range(5001, 5020)), list(range(1, 20))
    return {
        "driver_stats": driver_test_data.create_driver_hourly_stats_df(drivers, start, END),
        "customer_profile": driver_test_data.create_customer_daily_profile_df(customers, start, END),
        "location_stats": driver_test_data.create_location_stats_df(places, start, END),
        "order": driver_test_data.create_orders_df(customers, drivers, start, END, 20, places),
        "global_stats": driver_test_data.create_global_daily_stats_df(start, END),
        "field_mapping": driver_test_data.create_field_mapping_df(start, END),
    }


def the_source(folder: Path, name: str, frame: pd.DataFrame, **options: Any) -> FileSource:
    path = folder / f"{name}.parquet"
    in_utc = {"event_timestamp": pd.to_datetime(frame["event_timestamp"], utc=True, format="mixed")}
    pa.parquet.write_table(pa.Table.from_pandas(frame.assign(**in_utc)), path)
    created = {"created_timestamp_column": "created"} if "created" in frame else {}
    return FileSource(name=name, path=str(path), timestamp_field="event_timestamp", **created, **options)


def universe(folder: Path, ttl: timedelta = timedelta(days=2)) -> dict[str, FeatureView]:
    data = frames()
    sources = {
        name: the_source(
            folder, name, frame, field_mapping={"column_name": "feature_name"} if name == "field_mapping" else {}
        )
        for name, frame in data.items()
    }
    kinds: dict[str, tuple[list[Entity], dict[str, Any]]] = {
        "driver_stats": (
            [DRIVER],
            {
                "conv_rate": Float32, "acc_rate": Float32, "avg_daily_trips": Int32, "driver_metadata": Map,
                "driver_config": Json, "driver_profile": Struct({"name": String, "age": String}),
            },
        ),
        "customer_profile": (
            [CUSTOMER], {"current_balance": Float32, "avg_passenger_count": Float32, "lifetime_trip_count": Int32},
        ),
        "location_stats": ([LOCATION], {"temperature": Int32}),
        "order": ([CUSTOMER, DRIVER], {"order_is_success": Int32}),
        "global_stats": ([], {"num_rides": Int32, "avg_ride_length": Float32}),
        "field_mapping": ([], {"feature_name": Int32}),
    }  # fmt: skip
    return {
        name: FeatureView(
            name=name,
            entities=entities,
            ttl=ttl,
            schema=[Field(name=field, dtype=dtype) for field, dtype in fields.items()],
            source=sources[name],
        )
        for name, (entities, fields) in kinds.items()
    }


def on_demand(drivers: FeatureView) -> Any:
    request = RequestSource(name="request", schema=[Field(name="val_to_add", dtype=Int32)])
    fields = [("plus_100", Float64), ("plus_asked", Float64), ("plus_100_rounded", Int32)]

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[drivers[["conv_rate"]], request], schema=[Field(name=name, dtype=dtype) for name, dtype in fields]
    )
    def raised(inputs: pd.DataFrame) -> pd.DataFrame:
        found = pd.DataFrame({"plus_100": inputs["conv_rate"] + 100.0})
        found["plus_asked"] = inputs["conv_rate"] + inputs["val_to_add"]
        found["plus_100_rounded"] = found["plus_100"].astype("float").round().astype(pd.Int32Dtype())
        return found

    return raised


def asked() -> pd.DataFrame:
    orders = frames()["order"][["customer_id", "driver_id", "order_id", "origin_id", "destination_id"]].copy()
    orders["event_timestamp"] = frames()["order"]["event_timestamp"]
    return orders.assign(val_to_add=range(len(orders)))


def as_of(name: str, features: tuple[str, ...], row: Any, at: pd.Timestamp, ttl: timedelta) -> list[Any]:
    """The naive rule: the newest row of the keys at or before a time, within the ttl; of equals the last created."""
    frame = frames()[name].rename(columns={"column_name": "feature_name"})
    best: Any = None
    for position, candidate in enumerate(frame.to_dict("records")):
        event = utc(candidate["event_timestamp"])
        if any(candidate[key] != row[key] for key in KEYS[name]) or event > at or (ttl and event < at - ttl):
            continue
        rank = (event, utc(candidate.get("created", candidate["event_timestamp"])), position)
        if best is None or rank >= best[0]:
            best = (rank, candidate)
    return [None if best is None else best[1][feature] for feature in features]


def utc(moment: Any) -> pd.Timestamp:
    stamp = pd.Timestamp(moment)
    return stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")


def same(found: list[Any], wanted: list[Any]) -> None:
    plain = [None if value is None or pd.isna(value) else float(value) for value in found]
    assert plain == [None if value is None or pd.isna(value) else pytest.approx(float(value)) for value in wanted]


@pytest.mark.parametrize(("full", "ttl"), [(True, timedelta(days=2)), (False, timedelta(hours=2)), (True, timedelta())])
def test_history_is_what_the_naive_join_says(store: FeatureStore, tmp_path: Path, full: bool, ttl: timedelta) -> None:
    views = universe(tmp_path, ttl)
    raised = on_demand(views["driver_stats"])
    store.apply([DRIVER, CUSTOMER, LOCATION, *views.values(), raised])
    frame = asked()
    outputs = [f"{view}__{name}" if full else name for view, names in FEATURES.items() for name in names]
    job = store.get_historical_features(frame, [*REFS, "raised:plus_100"], full_feature_names=full)
    found = job.to_df()
    extra = "raised__plus_100" if full else "plus_100"
    assert found.columns.tolist() == [*frame.columns, *outputs, extra]  # what else the on-demand view makes is left out
    assert found["order_id"].tolist() == frame["order_id"].tolist()
    times = [utc(moment) for moment in frame["event_timestamp"]]
    assert [utc(moment) for moment in found["event_timestamp"]] == times
    rows = frame.to_dict("records")
    for view, names in FEATURES.items():
        wanted = [as_of(view, names, row, at, ttl) for row, at in zip(rows, times, strict=True)]
        for position, name in enumerate(names):
            same(found[f"{view}__{name}" if full else name].tolist(), [values[position] for values in wanted])
    rate = found["driver_stats__conv_rate" if full else "conv_rate"]
    same(found[extra].tolist(), (rate + 100).tolist())
    assert job.to_arrow().to_pandas().equals(found)


def test_a_service_reads_one_view_under_two_names(store: FeatureStore, tmp_path: Path) -> None:
    views = universe(tmp_path)
    place = views["location_stats"]
    trip = FeatureService(
        name="trip",
        features=[
            place.with_name("origin").with_join_key_map({"location_id": "origin_id"}),
            place.with_name("destination").with_join_key_map({"location_id": "destination_id"}),
        ],
    )
    store.apply([LOCATION, place, trip])
    store.materialize(END - timedelta(days=4), END + timedelta(hours=1))
    newest = frames()["location_stats"].sort_values("event_timestamp").groupby("location_id")["temperature"].last()
    rows = [{"origin_id": 1, "destination_id": 2}, {"origin_id": 2, "destination_id": 99}]
    online = store.get_online_features(trip, rows, full_feature_names=True).to_dict()
    assert online["origin__temperature"] == [newest[1], newest[2]]
    assert online["destination__temperature"] == [newest[2], None]
    frame = pd.DataFrame(rows).assign(event_timestamp=END)
    offline = store.get_historical_features(frame, trip, full_feature_names=True).to_df()
    assert offline["origin__temperature"].tolist() == online["origin__temperature"]
    for ask in (lambda: store.get_online_features(trip, rows), lambda: store.get_historical_features(frame, trip)):
        with pytest.raises(FeatureNameCollisionError):
            ask()


def test_online_is_the_newest_row_of_every_view(store: FeatureStore, tmp_path: Path) -> None:
    views = universe(tmp_path, timedelta(days=5))
    raised = on_demand(views["driver_stats"])
    service = FeatureService(name="service", features=[*(views[name] for name in FEATURES), raised])
    store.apply([DRIVER, CUSTOMER, LOCATION, *views.values(), raised, service])
    store.materialize(END - timedelta(days=4), END + timedelta(hours=1))
    orders = asked().to_dict("records")
    rows = [{"driver_id": row["driver_id"], "customer_id": row["customer_id"], "val_to_add": 5} for row in orders]
    rows.append({"driver_id": 1, "customer_id": 2, "val_to_add": 5})
    found = store.get_online_features(service, rows, full_feature_names=True).to_dict()
    for view, names in FEATURES.items():
        wanted = [as_of(view, names, row, utc(END), timedelta(days=5)) for row in rows]
        for position, name in enumerate(names):
            same(found[f"{view}__{name}"], [values[position] for values in wanted])
    rates = found["driver_stats__conv_rate"]
    same(found["raised__plus_asked"], [None if rate is None else rate + 5 for rate in rates])
    profile = frames()["driver_stats"].sort_values("event_timestamp").groupby("driver_id").last()
    for name in ("driver_metadata", "driver_profile", "driver_config"):
        kept = [profile[name].get(row["driver_id"]) for row in rows]
        if name == "driver_config":  # Feast hands JSON out as what it means
            kept = [None if text is None else json.loads(text) for text in kept]
        assert found[f"driver_stats__{name}"] == kept, name
    with pytest.raises(KeyError):
        store.get_online_features(["customer_profile:conv_rate"], rows)


def a_simple_view(
    folder: Path, values: list[Any], dtype: Any, name: str = "simple", keys: tuple[Any, ...] = (1, 2, 1, 3, 3)
) -> tuple[FeatureView, pd.DataFrame]:
    """Five rows of three drivers at −4 h, 0, −3 h, −4 h and −1 h, given in several zones; times map from `ts_1`."""
    zones = ["UTC", "UTC", "UTC", "Europe/Berlin", "US/Pacific"]
    hours = [4, 0, 3, 4, 1]
    times = [pd.Timestamp(END - timedelta(hours=h)).tz_convert(zone) for h, zone in zip(hours, zones, strict=True)]
    frame = pd.DataFrame({"driver_id": list(keys), "value": values, "ts_1": times, "created_ts": [END] * 5})
    path = folder / f"{name}.parquet"
    frame.assign(ts_1=pd.to_datetime(frame["ts_1"], utc=True)).to_parquet(path)
    origin = FileSource(
        name=f"{name}_file",
        path=str(path),
        timestamp_field="ts",
        created_timestamp_column="created_ts",
        field_mapping={"ts_1": "ts"},
    )
    schema = [Field(name="value", dtype=dtype)]
    return FeatureView(name=name, entities=[DRIVER], ttl=timedelta(days=5), schema=schema, source=origin), frame


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


def test_rows_are_written_offline_in_any_order_of_columns(store: FeatureStore, tmp_path: Path) -> None:
    drivers = universe(tmp_path, timedelta(minutes=10))["driver_stats"]
    store.apply([DRIVER, drivers])
    now = pd.Timestamp.now("UTC")
    labels = pd.DataFrame(
        {"driver_id": [5001] * 4, "event_timestamp": [now + timedelta(hours=h) for h in (3, 4, 5, 6)]}
    )

    def rates() -> list[Any]:
        found = store.get_historical_features(labels, ["driver_stats:conv_rate"]).to_df()["conv_rate"]
        return [None if pd.isna(value) else round(value, 2) for value in found]

    def a_batch(*changes: tuple[int, float]) -> pd.DataFrame:
        n = len(changes)
        return pd.DataFrame(
            {
                "avg_daily_trips": [3] * n,
                "created": [now] * n,
                "driver_config": ["{}"] * n,
                "conv_rate": [rate for _, rate in changes],
                "event_timestamp": [now + timedelta(hours=hour) for hour, _ in changes],
                "driver_metadata": [None] * n,
                "acc_rate": [0.5] * n,
                "driver_profile": [{"name": "x", "age": "3"}] * n,
                "driver_id": [5001] * n,
            }
        )

    assert rates() == [None] * 4
    store.write_to_offline_store("driver_stats", a_batch((3, 0.25), (4, 0.5)), allow_registry_cache=False)
    assert rates() == [0.25, 0.5, None, None]
    store.write_to_offline_store("driver_stats", a_batch((5, 0.75), (6, 0.125)), allow_registry_cache=False)
    assert rates() == [0.25, 0.5, 0.75, 0.12]
    wrong = a_batch((9, 0.1)).rename(columns={"acc_rate": "unknown"})
    with pytest.raises(ValueError, match="acc_rate"):
        store.write_to_offline_store("driver_stats", wrong, allow_registry_cache=False)


def test_a_saved_dataset_is_what_was_asked_and_overwrites_nothing(store: FeatureStore, tmp_path: Path) -> None:
    views = universe(tmp_path)
    store.apply([DRIVER, CUSTOMER, LOCATION, *views.values()])
    frame = asked().drop(columns=["order_id", "origin_id", "destination_id", "val_to_add"])
    job = store.get_historical_features(frame, REFS)
    saved = store.create_saved_dataset(
        from_=job, name="saved", storage=SavedDatasetFileStorage(path=str(tmp_path / "saved")), allow_overwrite=True
    )
    by = ["event_timestamp", "customer_id", "driver_id"]
    expected = job.to_df()
    again = saved.to_df()[expected.columns]
    pd.testing.assert_frame_equal(
        again.sort_values(by, ignore_index=True), expected.sort_values(by, ignore_index=True), check_dtype=False
    )
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(
            job, "mine", SavedDatasetStorage.from_data_source(views["customer_profile"].batch_source)
        )


@pytest.mark.parametrize("as_path", [True, False])
def test_logs_of_a_service_are_written_and_read_again(store: FeatureStore, tmp_path: Path, as_path: bool) -> None:
    drivers = universe(tmp_path)["driver_stats"]
    service = FeatureService(
        name="service",
        features=[drivers[["conv_rate", "avg_daily_trips"]]],
        logging_config=LoggingConfig(destination=FileLoggingDestination(path=str(tmp_path / "logs"))),
    )
    store.apply([DRIVER, drivers, service])
    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    n = 20
    times = [pd.Timestamp(END) + timedelta(seconds=i) for i in range(n)]
    values: dict[str, list[Any]] = {
        "driver_id": list(range(n)),
        "driver_stats__conv_rate": [i / 2 for i in range(n)],
        "driver_stats__avg_daily_trips": list(range(n)),
        LOG_TIMESTAMP_FIELD: times,
    }
    for field in schema:
        if field.name.endswith("__timestamp"):
            values[field.name] = times
        elif field.name.endswith("__status"):
            values[field.name] = [1] * n
        elif field.name not in values:
            values[field.name] = [str(i) for i in range(n)] if pa.types.is_string(field.type) else [END.date()] * n
    logs = pa.table({field.name: pa.array(values[field.name], field.type) for field in schema}, schema=schema)
    for number, part in enumerate((logs.slice(0, 7), logs.slice(7))):
        if as_path:
            folder = tmp_path / f"batch{number}"
            folder.mkdir()
            pa.parquet.write_table(part, folder / "0.parquet")
            store.write_logged_features(folder, service)
        else:
            store.write_logged_features(part, service)
    job = store._get_provider().retrieve_feature_service_logs(
        service, times[0], times[-1] + timedelta(seconds=1), store.config, store.registry
    )
    found = job.to_df().sort_values(LOG_TIMESTAMP_FIELD)
    assert found["driver_id"].tolist() == values["driver_id"]
    assert found["driver_stats__conv_rate"].tolist() == values["driver_stats__conv_rate"]


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


def test_history_without_entity_rows(store: FeatureStore, tmp_path: Path) -> None:
    view, _ = a_simple_view(tmp_path, [1, 2, 3, 4, 5], Int64)
    place = universe(tmp_path)["location_stats"]
    store.apply([DRIVER, LOCATION, view, place])
    start, end = END - timedelta(days=3), END + timedelta(hours=1)
    found = store.get_historical_features(features=["simple:value"], start_date=start, end_date=end).to_df()
    assert found[["driver_id", "value"]].to_numpy().tolist() == [[1, 3], [2, 2], [3, 5]]
    assert [utc(moment) for moment in found["event_timestamp"]] == [utc(end)] * 3
    none = store.get_historical_features(
        features=["simple:value"], start_date=END - timedelta(days=9), end_date=END - timedelta(days=8)
    ).to_df()
    assert len(none) == 0
    with pytest.raises(InvalidValue, match="entity_df"):
        store.get_historical_features(
            features=["simple:value", "location_stats:temperature"], start_date=start, end_date=end
        ).to_df()


@pytest.mark.slow
def test_the_command_line_of_a_stock_repository(tmp_path: Path, online_url: str) -> None:
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
        result = CliRunner().invoke(cli, ["-c", str(tmp_path), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

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
