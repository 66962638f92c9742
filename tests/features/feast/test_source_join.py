"""Parquet sources cut in every way, in one process and in tasks, against the definition; and one larger than memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from headway.core.errors import InvalidValue
from headway.features.feast.offline import RayPointInTimeOfflineStore
from tests.features.feast.test_offline import DRIVER, ask, at, entities, repo, source, stats, values, view

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def random_rows(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    event = rng.integers(0, 60, n)
    frame = pd.DataFrame(
        {
            "driver_id": pd.array(rng.integers(0, 12, n), "Int64"),
            "event_timestamp": [at(int(s)) for s in event],
            "created": [at(int(s)) for s in event + rng.choice([0, 0, 3, 20], n)],
            "value": rng.random(n),
        }
    )
    frame.loc[rng.random(n) < 0.05, "driver_id"] = pd.NA
    frame.loc[rng.random(n) < 0.1, "value"] = np.nan
    frame.loc[rng.random(n) < 0.05, "created"] = pd.NaT
    return frame


def expected(frame: pd.DataFrame, key: Any, t: pd.Timestamp, ttl: timedelta | None, cutoff: bool) -> float | None:
    """The definition, one label row at a time."""
    best: tuple[Any, ...] | None = None
    rows: list[dict[Any, Any]] = frame.to_dict("records")
    for position, row in enumerate(rows):
        late = pd.isna(row["created"]) or row["created"] > t
        if (
            pd.isna(key)
            or pd.isna(row["driver_id"])
            or row["driver_id"] != key
            or row["event_timestamp"] > t
            or (cutoff and late)
        ):
            continue
        created = pd.Timestamp.min.tz_localize("UTC") if pd.isna(row["created"]) else row["created"]
        rank = (row["event_timestamp"], created, position, row["value"])
        best = rank if best is None or rank[:3] > best[:3] else best
    if best is None or (ttl and t - best[0] > ttl) or pd.isna(best[3]):
        return None
    return float(best[3])


def labels(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    keys = [None if k == 13 else k for k in rng.integers(0, 14, n).tolist()]
    return entities([(k, at(int(s))) for k, s in zip(keys, rng.integers(-2, 80, n), strict=True)]).astype(
        {"driver_id": "Int64"}
    )


def cut(table: pa.Table, path: Path, row_group: int) -> None:
    pq.write_table(table, path, row_group_size=row_group)


def test_an_iceberg_folder(tmp_path: Path) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    store = FeatureStore(config=repo(tmp_path))
    catalog = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}/warehouse")
    catalog.create_namespace("n")
    rows = pa.Table.from_pandas(stats([(1, at(0), at(0), 1.0)]).astype({"driver_id": "int64"}), preserve_index=False)
    rows = rows.cast(
        pa.schema([f.with_type(pa.timestamp("us", "UTC")) if pa.types.is_timestamp(f.type) else f for f in rows.schema])
    )
    table = catalog.create_table("n.stats", schema=rows.schema)
    table.append(rows)
    table.overwrite(rows.set_column(3, "value", pa.array([2.0])))
    location = table.location().removeprefix("file://")
    store.apply([DRIVER, view(source(tmp_path, stats([]), path=location, created_timestamp_column="created"))])
    assert values(ask(store, entities([(1, at(1))]))) == [2.0]
    with pytest.raises(InvalidValue, match="Iceberg"):
        RayPointInTimeOfflineStore.offline_write_batch(store.config, store.get_feature_view("stats"), rows, None)


@pytest.mark.parametrize("ttl", [None, timedelta(seconds=7)])
@pytest.mark.parametrize("cutoff", [False, True])
def test_agrees_with_the_oracle_however_the_source_is_cut(tmp_path: Path, ttl: timedelta | None, cutoff: bool) -> None:
    frame, asked = random_rows(250, 3), labels(120, 4)
    wanted = [
        expected(frame, k, t, ttl, cutoff) for k, t in zip(asked["driver_id"], asked["event_timestamp"], strict=True)
    ]
    table = pa.Table.from_pandas(frame, preserve_index=False)

    def one_file(folder: Path) -> Path:
        cut(table, folder / "one.parquet", 250)
        return folder / "one.parquet"

    def small_groups(folder: Path) -> Path:
        cut(table, folder / "groups.parquet", 7)
        return folder / "groups.parquet"

    def many_files(folder: Path) -> Path:
        (folder / "files").mkdir()
        for number, begin in enumerate(range(0, 250, 2)):
            cut(table.slice(begin, 2), folder / "files" / f"{number:04}.parquet", 1)
        return folder / "files"

    shapes: list[Callable[[Path], Path]] = [one_file, small_groups, many_files]
    for shape, options in zip(shapes, ({}, {"split_mb": 0, "labels_per_pass": 11}, {"split_mb": 0}), strict=True):
        store = FeatureStore(config=repo(tmp_path, **options))
        path = shape(tmp_path)
        store.apply([DRIVER, view(source(tmp_path, frame, name=path.stem, path=str(path)), ttl=ttl)])
        found = ask(store, asked, filter_by_created_timestamp=cutoff)
        assert values(found) == wanted, shape.__name__


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_tasks_give_what_one_process_gives(tmp_path: Path) -> None:
    frame, asked = random_rows(3_000, 5), labels(500, 6)
    cut(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "stats.parquet", 500)
    found = []
    for options in ({}, {"parallel_above_mb": 0, "split_mb": 0, "labels_per_pass": 200}):
        store = FeatureStore(config=repo(tmp_path, **options))
        store.apply([DRIVER, view(source(tmp_path, frame), ttl=timedelta(seconds=9))])
        job = store.get_historical_features(entity_df=asked, features=["stats:value"])
        batch = store.get_feature_view("stats").batch_source
        pull = RayPointInTimeOfflineStore.pull_latest_from_table_or_query(
            store.config, batch, ["driver_id"], ["value"], "event_timestamp", "created", at(0), at(40)
        )
        found.append((job.to_arrow(), pull.to_arrow()))
    assert found[0][0].equals(found[1][0])
    assert found[0][1].equals(found[1][1])
    assert len(found[0][1]) == 12


BIG = """
import sys
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.parquet as pq
from pathlib import Path
from feast import FeatureStore
from tests.features.feast.test_offline import DRIVER, repo, source, view
from feast import Field
from feast.types import Float64

folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
names = [f"f{i}" for i in range(8)]
path = folder / "big.parquet"
moment = pa.timestamp("us", "UTC")
schema = pa.schema([("driver_id", pa.int64()), ("event_timestamp", moment), *((n, pa.float64()) for n in names)])
start = 1_767_225_600_000_000
with pq.ParquetWriter(path, schema, compression="none") as writer:
    for part in range(25):
        n = 200_000
        rows = {"driver_id": rng.integers(0, 50_000, n),
                "event_timestamp": pa.array(start + rng.integers(0, 10**12, n)).cast(moment),
                **{name: rng.random(n) for name in names}}
        rows["f0"] = rows["driver_id"] + 0.5
        writer.write_table(pa.table(rows, schema=schema))
assert path.stat().st_size > 4 * 80 * 2**20
options = {"object_store_mb": 80, "parallel_above_mb": 32, "split_mb": 32, "labels_per_pass": 100_000}
store = FeatureStore(config=repo(folder, **options))
fields = [Field(name=n, dtype=Float64) for n in names]
store.apply([DRIVER, view(source(folder, pd.DataFrame(), path=str(path)), schema=fields)])
at = pd.to_datetime(start + rng.integers(5 * 10**11, 10**12, 200_000), unit="us", utc=True)
asked = pd.DataFrame({"driver_id": rng.integers(0, 50_000, 200_000), "event_timestamp": at})
found = store.get_historical_features(entity_df=asked, features=[f"stats:{n}" for n in names]).to_arrow()
assert found["driver_id"].to_pylist() == asked["driver_id"].tolist()
ok = found["f0"].is_valid().to_numpy()
assert ok.mean() > 0.99
assert (found["f0"].to_numpy()[ok] == asked["driver_id"].to_numpy()[ok] + 0.5).all()
import ray
assert ray.cluster_resources()["object_store_memory"] <= 80 * 2**20
print("finished")
"""


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.ray
def test_a_source_several_times_the_object_store(tmp_path: Path) -> None:
    """Starts its own small Ray: in a process of its own, because this one may be in another."""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BIG, str(tmp_path)],
        cwd=root,
        capture_output=True,
        check=False,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.strip().endswith("finished")
