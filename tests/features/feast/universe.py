"""A repository with both Feast plug-ins, the data Feast makes for its own tests, and the naive rule of its joins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import (
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    RequestSource,
    driver_test_data,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int32, Json, Map, String, Struct
from feast.value_type import ValueType

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
