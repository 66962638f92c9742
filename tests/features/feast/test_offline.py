"""What Feast's universal historical tests ask for, with our rules where they differ, and what ours add."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, RequestSource
from feast.errors import RequestDataNotFoundInEntityDfException, SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from headway.core.errors import InvalidValue, NotFound
from headway.features.feast.offline import RayPointInTimeOfflineStore

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
T0 = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)


def at(seconds: float) -> pd.Timestamp:
    return pd.Timestamp(T0) + pd.Timedelta(seconds=seconds)


def repo(folder: Path, **options: Any) -> RepoConfig:
    store = {"type": "headway.features.offline_store.RayPointInTimeOfflineStore", **options}
    return RepoConfig(
        project="test",
        provider="local",
        registry=str(folder / "registry.db"),
        repo_path=folder,
        offline_store=store,
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
    )


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(config=repo(tmp_path))


def source(folder: Path, frame: pd.DataFrame, name: str = "stats", **options: Any) -> FileSource:
    path = folder / f"{name}.parquet"
    if not path.exists():
        frame.to_parquet(path)
    created = {"created_timestamp_column": "created"} if "created" in frame.columns else {}
    return FileSource(**{"name": name, "path": str(path), "timestamp_field": "event_timestamp", **created, **options})


def view(origin: FileSource, **options: Any) -> FeatureView:
    given = {"name": "stats", "entities": [DRIVER], "schema": [Field(name="value", dtype=Float64)], **options}
    return FeatureView(source=origin, **{"ttl": None, **given})


def stats(rows: Sequence[tuple[int | None, Any, Any, float | None]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["driver_id", "event_timestamp", "created", "value"])
    return frame.astype({"driver_id": "Int64", "value": "float64"})


def entities(rows: Sequence[tuple[Any, Any]], **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"driver_id": [k for k, _ in rows], "event_timestamp": [t for _, t in rows], **more})


def ask(store: FeatureStore, frame: Any, features: Any = ("stats:value",), **options: Any) -> pd.DataFrame:
    wanted = list(features) if isinstance(features, tuple) else features
    found: pd.DataFrame = store.get_historical_features(entity_df=frame, features=wanted, **options).to_df()
    return found


def values(frame: pd.DataFrame, name: str = "value") -> list[Any]:
    return [None if pd.isna(v) else v for v in frame[name]]


def applied(store: FeatureStore, tmp_path: Path, rows: Any, **options: Any) -> FeatureStore:
    store.apply([DRIVER, view(source(tmp_path, stats(rows)), **options)])
    return store


def test_a_repository_names_the_class_in_its_yaml(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(
        "project: test\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        "offline_store:\n  type: headway.features.offline_store.RayPointInTimeOfflineStore\n  split_mb: 8\n"
        "online_store:\n  type: sqlite\n  path: online.db\n"
    )
    found = applied(FeatureStore(repo_path=str(tmp_path)), tmp_path, [(1, at(0), at(0), 1.0)])
    assert values(ask(found, entities([(1, at(5))]))) == [1.0]


def test_lifetimes_are_inclusive_and_both_bounds_exact(store: FeatureStore, tmp_path: Path) -> None:
    applied(store, tmp_path, [(1, at(10), at(10), 1.0)], ttl=timedelta(seconds=5))
    times = [at(10) - MICROSECOND, at(10), at(15), at(15) + MICROSECOND]
    assert values(ask(store, entities([(1, t) for t in times]))) == [None, 1.0, 1.0, None]


@pytest.mark.parametrize("ttl", [None, timedelta(0)])
def test_no_lifetime_is_for_ever(store: FeatureStore, tmp_path: Path, ttl: timedelta | None) -> None:
    applied(store, tmp_path, [(1, at(0), at(0), 1.0)], ttl=ttl)
    assert values(ask(store, entities([(1, at(10**9))]))) == [1.0]


def test_ties_go_to_the_last_created_then_the_last_in_the_file(store: FeatureStore, tmp_path: Path) -> None:
    rows = [(1, at(0), at(9), 1.0), (1, at(0), at(5), 2.0), (2, at(0), at(5), 3.0), (2, at(0), at(5), 4.0)]
    applied(store, tmp_path, rows)
    assert values(ask(store, entities([(1, at(20)), (2, at(20))]))) == [1.0, 4.0]


def test_backfills_count_from_their_event_time_unless_the_cutoff_is_on(store: FeatureStore, tmp_path: Path) -> None:
    applied(store, tmp_path, [(1, at(0), at(0), 1.0), (1, at(5), at(100), 2.0), (2, at(5), None, 3.0)])
    frame = entities([(1, at(50)), (1, at(100)), (2, at(50))])
    assert values(ask(store, frame)) == [2.0, 2.0, 3.0]
    assert values(ask(store, frame, filter_by_created_timestamp=True)) == [1.0, 2.0, None]


def test_every_entity_row_comes_back_once_in_order_with_its_columns(store: FeatureStore, tmp_path: Path) -> None:
    applied(store, tmp_path, [(1, at(0), at(0), 1.0), (1, at(5), at(5), None), (3, at(90), at(90), 7.0)])
    rows = [(3, at(50)), (1, at(3)), (None, at(3)), (1, at(3)), (9, at(3)), (1, at(6)), (3, at(90))]
    frame = entities(rows, note=[f"row {i}" for i in range(7)], weight=np.arange(7) / 2)
    before = frame.copy()
    found = ask(store, frame)
    assert values(found) == [None, 1.0, None, 1.0, None, None, 7.0]
    assert found.columns.tolist() == ["driver_id", "event_timestamp", "note", "weight", "value"]
    assert found["note"].tolist() == before["note"].tolist()
    assert found["weight"].tolist() == before["weight"].tolist()
    assert found["event_timestamp"].tolist() == before["event_timestamp"].tolist()
    pd.testing.assert_frame_equal(frame, before)


def test_no_rows_on_either_side(store: FeatureStore, tmp_path: Path) -> None:
    applied(store, tmp_path, [(1, at(0), at(0), 1.0)])
    empty = ask(store, entities([(1, at(0))]).iloc[:0])
    assert (len(empty), "value" in empty.columns) == (0, True)
    stats([(1, at(0), at(0), 1.0)]).iloc[:0].to_parquet(tmp_path / "stats.parquet")
    assert values(ask(store, entities([(1, at(5))]))) == [None]


def test_composite_keys_never_run_into_one_another(store: FeatureStore, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "a": ["1", "11", "1", None],
            "b": ["11", "1", "1", "1"],
            "event_timestamp": [at(0)] * 4,
            "value": [1.0, 2.0, 3.0, 4.0],
        }
    )
    keys = [Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in "ab"]
    store.apply([*keys, view(source(tmp_path, frame), entities=keys)])
    asked = pd.DataFrame(
        {
            "a": ["11", "1", "1", "111", None, "11"],
            "b": ["1", "11", "1", "", "1", "11"],
            "event_timestamp": [at(1)] * 6,
        }
    )
    assert values(ask(store, asked)) == [2.0, 1.0, 3.0, None, None, None]


@pytest.mark.parametrize(("stored", "asked"), [("int32", "int64"), ("int64", "int32"), ("int64", "float64")])
def test_integer_keys_of_any_width_meet(store: FeatureStore, tmp_path: Path, stored: Any, asked: Any) -> None:
    frame = pd.DataFrame({"driver_id": np.array([5, -7], stored), "event_timestamp": [at(0)] * 2, "value": [1.0, 2.0]})
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT32)
    store.apply([driver, view(source(tmp_path, frame), entities=[driver])])
    assert values(ask(store, entities([(-7, at(1)), (5, at(1))]).astype({"driver_id": asked}))) == [2.0, 1.0]


def test_text_keys_categories_and_wrong_kinds(store: FeatureStore, tmp_path: Path) -> None:
    frame = pd.DataFrame({"driver_id": ["x", "ü"], "event_timestamp": [at(0)] * 2, "value": [1.0, 2.0]})
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.STRING)
    store.apply([driver, view(source(tmp_path, frame), entities=[driver])])
    asked = entities([("ü", at(1)), ("x", at(1)), ("y", at(1))])
    assert values(ask(store, asked)) == [2.0, 1.0, None]
    assert values(ask(store, asked.astype({"driver_id": "category"}))) == [2.0, 1.0, None]
    with pytest.raises(InvalidValue, match="driver_id"):
        ask(store, entities([(1, at(1))]))
    assert values(ask(store, entities([(None, at(1))]))) == [None]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_any_unit_and_zone_meet(store: FeatureStore, tmp_path: Path, unit: str, zone: str | None) -> None:
    moment = pa.scalar(1_767_268_800_000, pa.int64()).cast(pa.timestamp("ms")).cast(pa.timestamp(unit, zone))
    table = pa.table(
        {"driver_id": [1], "event_timestamp": pa.array([moment.value], pa.timestamp(unit, zone)), "value": [1.0]}
    )
    pq.write_table(table, tmp_path / "stats.parquet", version="2.6")
    store.apply([DRIVER, view(source(tmp_path, table.to_pandas()))])
    exact = pd.Timestamp(1_767_268_800_000, unit="ms", tz="UTC")
    aware = [exact - MICROSECOND, exact, exact.tz_convert("Asia/Tokyo")]
    assert values(ask(store, entities([(1, t) for t in aware[:2]]))) == [None, 1.0]
    naive = [t.tz_convert("UTC").tz_localize(None) for t in aware]
    assert values(ask(store, entities([(1, t) for t in naive]))) == [None, 1.0, 1.0]
    mixed = entities([(1, t) for t in aware]).astype({"event_timestamp": object})
    assert values(ask(store, mixed)) == [None, 1.0, 1.0]
    text = entities([(1, t.isoformat()) for t in (*aware, naive[1])])
    job = RayPointInTimeOfflineStore.get_historical_features(
        store.config, [store.get_feature_view("stats")], ["stats:value"], text, store.registry, "test"
    )
    assert values(job.to_df()) == [None, 1.0, 1.0, 1.0]


def test_nanoseconds_are_not_rounded(store: FeatureStore, tmp_path: Path) -> None:
    fine = pd.Timestamp("2026-01-01T00:00:00.000000500Z")
    applied(store, tmp_path, [(1, fine, fine, 1.0)], ttl=timedelta(seconds=1))
    late = fine + timedelta(seconds=1)
    asked = [fine - pd.Timedelta(1, "ns"), fine, late, late + pd.Timedelta(1, "ns")]
    assert values(ask(store, entities([(1, t) for t in asked]))) == [None, 1.0, 1.0, None]


def test_the_hour_that_happens_twice(store: FeatureStore, tmp_path: Path) -> None:
    zone = "America/New_York"
    first = pd.Timestamp("2025-11-02T05:30Z").tz_convert(zone)
    second = pd.Timestamp("2025-11-02T06:30Z").tz_convert(zone)
    assert first.strftime("%H:%M") == second.strftime("%H:%M")
    applied(store, tmp_path, [(1, first, first, 1.0), (1, second, second, 2.0)])
    asked = [first, second - MICROSECOND, second]
    assert values(ask(store, entities([(1, t) for t in asked]))) == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("name", ["ts", "datetime", "e_ts"])
def test_the_time_column_of_entity_rows_may_have_any_name(store: FeatureStore, tmp_path: Path, name: str) -> None:
    applied(store, tmp_path, [(1, at(0), at(0), 1.0)])
    found = ask(store, entities([(1, at(5))]).rename(columns={"event_timestamp": name}))
    assert found.columns.tolist() == ["driver_id", name, "value"]
    assert values(found) == [1.0]
    with pytest.raises(InvalidValue, match="event_timestamp"):
        RayPointInTimeOfflineStore.get_historical_features(
            store.config,
            [store.get_feature_view("stats")],
            ["stats:value"],
            entities([(1, at(5))], a=[at(1)]).rename(columns={"event_timestamp": "b"}),
            store.registry,
            "test",
        )


def test_views_may_name_their_times_differently(store: FeatureStore, tmp_path: Path) -> None:
    first = stats([(1, at(0), at(0), 1.0)])
    second = stats([(1, at(2), at(2), 2.0)]).rename(columns={"event_timestamp": "when", "created": "made"})
    third = stats([(1, at(3), at(3), 3.0)]).rename(columns={"event_timestamp": "ts"}).drop(columns="created")
    store.apply(
        [
            DRIVER,
            view(source(tmp_path, first, "a"), name="a"),
            view(source(tmp_path, second, "b", timestamp_field="when", created_timestamp_column="made"), name="b"),
            view(source(tmp_path, third, "c", timestamp_field="ts"), name="c"),
        ]
    )
    found = ask(store, entities([(1, at(2.5))]), ("a:value", "b:value", "c:value"), full_feature_names=True)
    assert [values(found, f"{name}__value")[0] for name in "abc"] == [1.0, 2.0, None]


def test_views_without_entities(store: FeatureStore, tmp_path: Path) -> None:
    frame = stats([(1, at(0), at(0), 1.0), (1, at(9), at(9), 2.0)]).drop(columns="driver_id")
    store.apply([view(source(tmp_path, frame), name="world", entities=[])])
    asked = entities([(1, at(5)), (None, at(9)), (1, at(-1))])
    assert values(ask(store, asked, ("world:value",))) == [1.0, 2.0, None]
    assert values(ask(store, asked[["event_timestamp"]], ("world:value",))) == [1.0, 2.0, None]


def test_one_view_twice_under_two_keys(store: FeatureStore, tmp_path: Path) -> None:
    frame = pd.DataFrame({"location_id": [1, 2], "event_timestamp": [at(0)] * 2, "temperature": [10, 20]})
    place = Entity(name="location", join_keys=["location_id"], value_type=ValueType.INT64)
    weather = view(
        source(tmp_path, frame), name="weather", entities=[place], schema=[Field(name="temperature", dtype=Int32)]
    )
    service = FeatureService(
        name="trip",
        features=[
            weather.with_name("origin").with_join_key_map({"location_id": "origin_id"}),
            weather.with_name("destination").with_join_key_map({"location_id": "destination_id"}),
        ],
    )
    store.apply([place, weather, service])
    asked = pd.DataFrame({"origin_id": [1, 2], "destination_id": [2, 9], "event_timestamp": [at(1)] * 2})
    found = ask(store, asked, store.get_feature_service("trip"), full_feature_names=True)
    assert values(found, "origin__temperature") == [10, 20]
    assert values(found, "destination__temperature") == [20, None]
    with pytest.raises(InvalidValue, match="destination_id"):
        ask(store, asked.drop(columns="destination_id"), store.get_feature_service("trip"), full_feature_names=True)


def test_two_views_share_a_source(store: FeatureStore, tmp_path: Path) -> None:
    origin = source(tmp_path, stats([(1, at(0), at(0), 1.0)]).assign(other=[7.0]))
    second = view(origin, name="more", schema=[Field(name="other", dtype=Float64)], ttl=timedelta(seconds=2))
    store.apply([DRIVER, view(origin), second])
    found = ask(store, entities([(1, at(2)), (1, at(3))]), ("stats:value", "more:other"))
    assert (values(found), values(found, "other")) == ([1.0, 1.0], [7.0, None])


def test_mapped_names(store: FeatureStore, tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [1], "event_timestamp": [at(0)], "v": [1.5]})
    origin = source(tmp_path, frame, field_mapping={"id": "driver_id", "v": "value"})
    store.apply([DRIVER, view(origin)])
    assert values(ask(store, entities([(1, at(1))]))) == [1.5]


def test_values_keep_their_types(store: FeatureStore, tmp_path: Path) -> None:
    table = pa.table(
        {
            "driver_id": [1, 2],
            "event_timestamp": pa.array([at(0), at(0)], pa.timestamp("us", "UTC")),
            "f32": pa.array([0.5, None], pa.float32()),
            "i32": pa.array([7, None], pa.int32()),
            "i64": pa.array([2**60 + 1, None], pa.int64()),
            "flag": pa.array([True, None], pa.bool_()),
            "text": ["ü", None],
            "moment": pa.array([at(1), None], pa.timestamp("us", "UTC")),
            "many": pa.array([[1.0, 2.0], None], pa.list_(pa.float64())),
        }
    )
    pq.write_table(table, tmp_path / "stats.parquet")
    kinds: dict[str, Any] = {"f32": Float32, "i32": Int32, "i64": Int64, "flag": Bool, "text": String}
    kinds |= {"moment": UnixTimestamp, "many": Array(Float64)}
    schema = [Field(name=name, dtype=kind) for name, kind in kinds.items()]
    store.apply([DRIVER, view(source(tmp_path, table.to_pandas()), schema=schema)])
    job = store.get_historical_features(
        entity_df=entities([(2, at(1)), (1, at(1)), (3, at(1))]), features=[f"stats:{name}" for name in kinds]
    )
    found = job.to_arrow()
    for name in kinds:
        assert found.schema.field(name).type == table.schema.field(name).type, name
        assert found[name].to_pylist() == [None, table[name][0].as_py(), None]


def test_on_demand_features_from_request_data(store: FeatureStore, tmp_path: Path) -> None:
    stored = view(source(tmp_path, stats([(1, at(0), at(0), 1.5)])))
    request = RequestSource(name="asked", schema=[Field(name="extra", dtype=Int64)])

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[stored, request], schema=[Field(name="total", dtype=Float64)]
    )
    def sums(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"total": inputs["value"] + inputs["extra"]})

    store.apply([DRIVER, stored, sums])
    frame = entities([(1, at(1)), (1, at(2))], extra=[10, 20])
    with pytest.raises(RequestDataNotFoundInEntityDfException, match="extra"):
        ask(store, frame.drop(columns="extra"), ("sums:total",))
    assert ask(store, frame, ("sums:total",)).columns.tolist()[-1] == "total"
    for full in (False, True):
        found = ask(store, frame, ("stats:value", "sums:total"), full_feature_names=full)
        assert values(found, "sums__total" if full else "total") == [11.5, 21.5]
        assert values(found, "stats__value" if full else "value") == [1.5, 1.5]


def test_saved_datasets(store: FeatureStore, tmp_path: Path) -> None:
    applied(store, tmp_path, [(1, at(0), at(0), 1.0), (2, at(1), at(1), 2.0)])
    frame = entities([(1, at(5)), (2, at(6)), (1, at(7))])
    for name in ("saved.parquet", "saved"):
        job = store.get_historical_features(entity_df=frame, features=["stats:value"])
        storage = SavedDatasetFileStorage(path=str(tmp_path / name))
        store.create_saved_dataset(job, name.replace(".", "_"), storage)
        again = store.get_saved_dataset(name.replace(".", "_")).to_df()
        assert sorted(again["value"]) == [1.0, 1.0, 2.0]
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            job.persist(storage)
        job.persist(storage, allow_overwrite=True)
        assert len(pq.read_table(tmp_path / name)) == 3
    with pytest.raises(InvalidValue, match="storage"):
        job.persist(object())


def test_retrieval_without_entity_rows_is_everything_at_the_end(store: FeatureStore, tmp_path: Path) -> None:
    applied(
        store,
        tmp_path,
        [(2, at(0), at(0), 1.0), (1, at(5), at(5), 2.0), (1, at(7), at(7), 3.0), (3, at(99), at(99), 4.0)],
    )
    found = store.get_historical_features(features=["stats:value"], start_date=at(0), end_date=at(50)).to_df()
    assert found["driver_id"].tolist() == [1, 2]
    assert values(found) == [3.0, 1.0]


def test_pulls_for_materialisation(store: FeatureStore, tmp_path: Path) -> None:
    rows = [
        (1, at(0), at(0), 1.0),
        (1, at(5), at(9), 2.0),
        (1, at(5), at(6), 3.0),
        (2, at(3), at(3), None),
        (2, at(60), at(60), 9.0),
    ]
    applied(store, tmp_path, rows)
    arguments: tuple[Any, ...] = (
        store.config,
        store.get_feature_view("stats").batch_source,
        ["driver_id"],
        ["value"],
        "event_timestamp",
        "created",
        at(0),
        at(59),
    )
    latest = RayPointInTimeOfflineStore.pull_latest_from_table_or_query(*arguments).to_arrow()
    assert latest.column_names == ["driver_id", "value", "event_timestamp", "created"]
    assert latest.select(["driver_id", "value"]).to_pylist() == [
        {"driver_id": 1, "value": 2.0},
        {"driver_id": 2, "value": None},
    ]
    everything = RayPointInTimeOfflineStore.pull_all_from_table_or_query(*arguments).to_arrow()
    assert everything["value"].to_pylist() == [1.0, 2.0, 3.0, None]
    unknown: tuple[Any, ...] = (*arguments[:2], ["nothing"], *arguments[3:])
    with pytest.raises(InvalidValue, match="no column 'nothing'"):
        RayPointInTimeOfflineStore.pull_latest_from_table_or_query(*unknown).to_arrow()
    store.materialize(start_date=at(-1), end_date=at(59))
    online = store.get_online_features(features=["stats:value"], entity_rows=[{"driver_id": 1}]).to_dict()
    assert online["value"] == [2.0]


def test_writing_appends_after_what_is_there(store: FeatureStore, tmp_path: Path) -> None:
    applied(store, tmp_path, [(1, at(0), at(0), 1.0)])
    batch = stats([(1, at(0), at(0), 2.0)])
    store.write_to_offline_store("stats", batch)
    assert values(ask(store, entities([(1, at(1))]))) == [2.0]
    assert len(list(tmp_path.glob("*partial*"))) == 0
    table = pq.read_table(tmp_path / "stats.parquet")
    with pytest.raises(InvalidValue, match="stats"):
        RayPointInTimeOfflineStore.offline_write_batch(
            store.config, store.get_feature_view("stats"), table.drop_columns(["value"]), None
        )
    folder = tmp_path / "many"
    folder.mkdir()
    pq.write_table(table, folder / "0.parquet")
    written: list[int] = []
    store.apply([view(source(tmp_path, batch, path=str(folder)))])
    for value in (5.0, 6.0):
        RayPointInTimeOfflineStore.offline_write_batch(
            store.config,
            store.get_feature_view("stats"),
            pa.Table.from_pandas(stats([(1, at(0), at(0), value)])).cast(table.schema),
            written.append,
        )
    assert values(ask(store, entities([(1, at(1))]))) == [6.0]
    assert written == [1, 1]


def test_logged_features(store: FeatureStore, tmp_path: Path) -> None:
    logs = pa.table({"day": ["a", "b"], "value": [1.0, 2.0]})
    config = LoggingConfig(destination=FileLoggingDestination(path=str(tmp_path / "logs"), partition_by=["day"]))
    pq.write_table(logs, tmp_path / "log.parquet")
    for data in (logs, tmp_path / "log.parquet"):
        RayPointInTimeOfflineStore.write_logged_features(store.config, data, None, config, None)
    assert len(list((tmp_path / "logs").rglob("*.parquet"))) == 4


def test_wrong_input_names_its_field(store: FeatureStore, tmp_path: Path) -> None:
    applied(store, tmp_path, [(1, at(0), at(0), 1.0)])
    good: Any = entities([(1, at(1))])
    wrong: list[tuple[Any, str]] = [
        ("select 1", "entity_df"),
        (good.drop(columns="driver_id"), "driver_id"),
        (good.assign(value=1.0), "value"),
        (good.assign(note=[object()]), "note"),
        (good.assign(event_timestamp=[5]), "event_timestamp"),
        (good.assign(event_timestamp=[pd.NaT]), "event_timestamp"),
        (good.assign(event_timestamp=["soon"]), "event_timestamp"),
        (good.assign(driver_id=[1.5]), "driver_id"),
        (pd.concat([good, good], axis=1), "entity_df"),
    ]
    for frame, field in wrong:
        with pytest.raises(InvalidValue, match=field):
            RayPointInTimeOfflineStore.get_historical_features(
                store.config, [store.get_feature_view("stats")], ["stats:value"], frame, store.registry, "test"
            ).to_df()
    (tmp_path / "stats.parquet").unlink()
    with pytest.raises(NotFound, match=r"stats\.parquet"):
        ask(store, good)
    stats([(1, at(0), at(0), 1.0)]).drop(columns="value").to_parquet(tmp_path / "stats.parquet")
    with pytest.raises(InvalidValue, match="value"):
        ask(store, good)
