"""Both Feast plug-ins in one repository, over the data Feast makes for its own tests, against naive oracles."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import (
    FeatureService,
    FeatureStore,
)
from feast.errors import FeatureNameCollisionError, SavedDatasetLocationAlreadyExists
from feast.feature_logging import LOG_TIMESTAMP_FIELD, FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.saved_dataset import SavedDatasetStorage
from feast.types import Int64

from headway.core.errors import InvalidValue
from tests.features.feast.universe import (
    CUSTOMER,
    DRIVER,
    END,
    FEATURES,
    LOCATION,
    REFS,
    a_simple_view,
    as_of,
    asked,
    frames,
    on_demand,
    same,
    universe,
    utc,
)

# Feast warns about itself at import and on most calls
pytestmark = pytest.mark.filterwarnings("ignore")


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
    with pytest.raises(FeatureNameCollisionError):
        store.get_online_features(trip, rows)
    with pytest.raises(FeatureNameCollisionError):
        store.get_historical_features(frame, trip)


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
