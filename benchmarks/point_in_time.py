"""Training sets: label rows joined as of their time, against one Polars process on all cores and Feast's DuckDB store.

The same rules everywhere: newest row at or before the label, greatest created time of ties, lifetime of 30 days
inclusive. Everybody starts from label rows in memory and source rows in files, and ends with the joined table. Outputs
are compared value by value. A ratio is the median over pairs of runs that follow one another.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:  # the peer's Python lacks what the harness needs
    from benchmarks.harness import Collector, Report

_ROOT = Path(__file__).resolve().parent.parent
_NAMES = tuple(f"f{i}" for i in range(10))
_TTL = timedelta(days=30)
_SPAN = int(timedelta(days=180) / timedelta(microseconds=1))
_START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_BUCKETED, _UNBUCKETED = "headway, bucketed table", "headway, Feast store on plain files"
_POLARS, _LATE, _DUCKDB = "polars, one process", "polars, features gathered late", "feast duckdb store"
_TIME = pa.timestamp("us", "UTC")
Run = Callable[[], float]
"""Does the work once and returns its seconds."""


@dataclass(frozen=True, kw_only=True)
class _Data:
    """Where the inputs of one size are, and the label rows."""

    folder: Path
    labels: pa.Table
    rows: int

    @property
    def case(self) -> str:
        return f"{self.labels.num_rows:,} labels x {self.rows:,} rows x {len(_NAMES)} features"


def benchmark(*, quick: bool = False) -> Report:
    """Run everything and return the report."""
    import msgspec

    from benchmarks.harness import Collector

    pairs = 3
    labels, rows, keys = (100_000, 500_000, 10_000) if quick else (1_000_000, 5_000_000, 100_000)
    collector = Collector("point_in_time")
    work = Path(tempfile.mkdtemp(prefix="hb"))
    try:
        with _ray():
            data = _make(work, labels, rows, keys)
            bucketed, unbucketed = _bucketed(data), _unbucketed(data)
            polars, late = _polars(data, late=False), _polars(data, late=True)
            for name, run in ((_UNBUCKETED, unbucketed), (_POLARS, polars), (_LATE, late)):
                _same(data.folder, _BUCKETED, bucketed, name, run)
            fast = _pairs(collector, data, (_BUCKETED, bucketed), (_POLARS, polars), pairs + 2)
            plain = _pairs(collector, data, (_UNBUCKETED, unbucketed), (_POLARS, polars), pairs + 2)
            _pairs(collector, data, (_BUCKETED, bucketed), (_LATE, late), pairs)
            with _feast(data) as (feast, versions):
                _same(data.folder, _BUCKETED, bucketed, _DUCKDB, feast)
                over = _pairs(collector, data, (_BUCKETED, bucketed), (_DUCKDB, feast), pairs)
            rates = _scaling(collector, work, rows, keys, (labels, 3 * labels, 10 * labels))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    collector.hold("bucketed, label rows/s over Feast with DuckDB", over, "times", ">=", 5.0)
    collector.hold("bucketed, label rows/s over one Polars process", fast, "times", ">=", 1.0)
    collector.hold("plain files, label rows/s over one Polars process", plain, "times", ">=", 0.5)
    collector.hold("ten times the labels, label rows/s against once", rates[-1] / rates[0], "times", ">=", 0.8)
    report = collector.report()
    peers = {name: importlib.metadata.version(name) for name in ("polars", "feast", "pyiceberg", "numba")}
    return msgspec.structs.replace(report, versions={**report.versions, **peers, "duckdb (feast)": versions})


def _pairs(collector: Collector, data: _Data, ours: tuple[str, Run], theirs: tuple[str, Run], pairs: int) -> float:
    """Run ours and a peer in turn; return the median ratio of label rows/s."""
    seconds: list[tuple[float, float]] = [(ours[1](), theirs[1]()) for _ in range(pairs)]
    for position, (name, peer) in enumerate(((ours[0], theirs[0]), (theirs[0], ours[0]))):
        rates = [data.labels.num_rows / pair[position] for pair in seconds]
        rate = collector.add(f"{name}, beside {peer}", data.case, "label rows", "rows/s", rates)
        print(f"{name}, beside {peer}: {rate:,.0f} label rows/s", flush=True)
    return collector.add(ours[0], data.case, f"rate over {theirs[0]}", "times", [b / a for a, b in seconds])


def _scaling(collector: Collector, work: Path, rows: int, keys: int, sizes: tuple[int, ...]) -> list[float]:
    """Return the median label rows/s of the bucketed join over one source by number of labels."""
    rates = []
    for size in sizes:
        data = _Data(folder=work, labels=_labels(size, keys, seed=size), rows=rows)
        run = _bucketed(data)
        rates.append(collector.add(_BUCKETED, data.case, "label rows", "rows/s", [size / run() for _ in range(3)]))
        print(f"{_BUCKETED}, {data.case}: {rates[-1]:,.0f} label rows/s", flush=True)
    return rates


def _labels(labels: int, keys: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    at = _START + rng.integers(0, _SPAN, labels)
    return pa.table({"driver_id": rng.integers(0, keys, labels), "event_timestamp": pa.array(at).cast(_TIME)})


def _make(work: Path, labels: int, rows: int, keys: int) -> _Data:
    """Write one source as plain Parquet and as a bucketed lake table; one row in a hundred ties with another."""
    from headway.core.clock import SystemClock
    from headway.features.committer import Committer

    rng = np.random.default_rng(1)
    key, event = rng.integers(0, keys, rows), _START + rng.integers(0, _SPAN, rows)
    tied = rng.integers(0, rows // 2, rows // 100)
    key[rows // 2 + tied], event[rows // 2 + tied] = key[tied], event[tied]
    created = event + rng.permutation(rows)
    values = {name: rng.random(rows, np.float32) for name in _NAMES}
    times = {"event_timestamp": pa.array(event).cast(_TIME), "created": pa.array(created).cast(_TIME)}
    pq.write_table(
        pa.table({"driver_id": key, **times, **values}),
        work / "stats.parquet",
        row_group_size=250_000,
        compression="zstd",
    )
    table = pa.table({"id": np.arange(rows), "driver_id": key, **values, "event_time": event, "known_time": created})
    Committer(_lake(work), SystemClock()).append(_service().views[0].source, table, "all")
    return _Data(folder=work, labels=_labels(labels, keys, seed=2), rows=rows)


def _lake(work: Path) -> Any:
    from headway.features.lake import Location

    return Location(catalog_uri=f"sqlite:///{work}/lake/catalog.db", warehouse=f"file://{work}/lake/warehouse")


def _service() -> Any:
    from headway.features.definitions import Entity, EventSource, FeatureService, RowView

    source = EventSource(
        name="stats",
        columns={"id": "int64", "driver_id": "int64", **dict.fromkeys(_NAMES, "float32")},
        id="id",
        bucket_by="driver_id",
        buckets=8,
        purposes=("benchmark",),
    )
    driver = Entity(name="driver", key="driver_id")
    ttl = _TTL // timedelta(microseconds=1)
    return FeatureService(
        name="stats", views=(RowView(name="stats", entity=driver, source=source, columns=_NAMES, ttl=ttl),), request={}
    )


def _timed(data: _Data, system: str, work: Callable[[], pa.Table]) -> Run:
    """Return a run that keeps its last result for comparison."""

    def run() -> float:
        begin = time.perf_counter()
        found = work()
        seconds = time.perf_counter() - begin
        if _KEEP in os.environ:
            table = pa.table({name: pa.array(found[f"{name}"]).cast(pa.float32()) for name in _NAMES})
            pq.write_table(table, data.folder / f"{system}.result")
        return seconds

    return run


def _bucketed(data: _Data) -> Run:
    """Return the join of the lake's table, which is bucketed by key, as training does it."""
    import ray

    from headway.core.clock import SystemClock
    from headway.core.types import Principal
    from headway.features.historical import training_set
    from headway.features.reader import LakeReader
    from headway.governance.audit_event import MemoryAudit

    clock, service = SystemClock(), _service()
    reader = LakeReader(_lake(data.folder), MemoryAudit(clock), clock)
    scopes = frozenset({"data:read"})
    who = Principal(sub="b", kind="workload", scopes=scopes, purpose="benchmark", expires=2**62)
    spine = data.labels.rename_columns(["driver_id", "event_time"])

    def join() -> Any:
        return training_set(spine, service, reader, who, "benchmark", cutoff=False)

    def run() -> float:
        begin = time.perf_counter()
        dataset = join()
        seconds = time.perf_counter() - begin
        if _KEEP in os.environ:
            table = pa.concat_tables(ray.get(dataset.to_arrow_refs())).sort_by("row_id")
            kept = pa.table({name: table[f"stats__{name}"] for name in _NAMES})
            pq.write_table(kept, data.folder / f"{_BUCKETED}.result")
        return seconds

    return run


def _unbucketed(data: _Data) -> Run:
    """Return Feast's own call on our store, on one plain Parquet file."""
    store = _feature_store(data.folder, "headway.features.offline_store.RayPointInTimeOfflineStore")
    frame, features = data.labels.to_pandas(), [f"stats:{name}" for name in _NAMES]

    def join() -> pa.Table:
        return store.get_historical_features(entity_df=frame, features=features).to_arrow()

    return _timed(data, _UNBUCKETED, join)


def _polars(data: _Data, *, late: bool) -> Run:
    """Return the join in Polars on all cores: the whole rows sorted, or only what decides, features gathered after."""
    import polars as pl

    labels = pl.DataFrame(data.labels)
    decides = ["driver_id", "event_timestamp", "created"]

    def join() -> pa.Table:
        source = pl.scan_parquet(data.folder / "stats.parquet")
        if late:
            source = source.select(decides).with_row_index("row")
        joined = (
            labels.lazy()
            .with_row_index("label")
            .sort("event_timestamp")
            .join_asof(
                source.sort("event_timestamp", "created"),
                on="event_timestamp",
                by="driver_id",
                tolerance=_TTL,
                check_sortedness=False,
            )
            .sort("label")
            .collect()
        )
        if late:
            values = pl.read_parquet(data.folder / "stats.parquet", columns=list(_NAMES))
            joined = pl.concat([joined, values[joined["row"]]], how="horizontal")
        return joined.to_arrow()

    return _timed(data, _LATE if late else _POLARS, join)


_KEEP = "HEADWAY_BENCHMARK_KEEP"
_PEER = """
import os, sys, time, warnings
from importlib.metadata import version
warnings.filterwarnings("ignore")
import pyarrow as pa, pyarrow.parquet as pq
sys.path.insert(0, os.getcwd())
from benchmarks.point_in_time import _NAMES, _feature_store
from pathlib import Path
folder = Path(sys.argv[1])
store, frame = _feature_store(folder, "duckdb"), pq.read_table(folder / "labels.parquet").to_pandas()
frame["label"] = range(len(frame))
print("ready", ",".join(f"{n}={version(n)}" for n in ("duckdb", "ibis-framework", "pyarrow")), flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    found = store.get_historical_features(entity_df=frame.copy(), features=[f"stats:{n}" for n in _NAMES]).to_arrow()
    seconds = time.perf_counter() - begin
    if line.strip() == "keep":
        pq.write_table(found.sort_by("label").select(list(_NAMES)), folder / "feast duckdb store.result")
    print("seconds", seconds, flush=True)
"""


@contextlib.contextmanager
def _feast(data: _Data) -> Iterator[tuple[Run, str]]:
    """Start Feast with its DuckDB store in a process of its own; yield its run and the versions it runs on."""
    pq.write_table(data.labels, data.folder / "labels.parquet")
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen(
        [sys.executable, "-c", _PEER, str(data.folder)],
        cwd=_ROOT, env=clean, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    def answer() -> str:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(("ready", "seconds")):  # DuckDB draws its progress there too
                return line.split()[-1]
        raise RuntimeError("Feast with DuckDB ended")

    def run() -> float:
        assert process.stdin is not None
        process.stdin.write("keep\n" if _KEEP in os.environ else "run\n")
        process.stdin.flush()
        return float(answer())

    try:
        yield run, answer()
    finally:
        process.stdin.close()
        process.wait(30)


def _feature_store(folder: Path, kind: str) -> Any:
    """Return a Feast repository over the plain file with the store named."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float32
    from feast.value_type import ValueType

    config = RepoConfig(
        project="benchmark",
        provider="local",
        registry=str(folder / f"{kind}.registry"),
        offline_store={"type": kind},
        online_store=None,
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=config)
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    source = FileSource(
        name="stats",
        path=str(folder / "stats.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    schema = [Field(name=name, dtype=Float32) for name in _NAMES]
    store.apply([driver, FeatureView(name="stats", entities=[driver], source=source, ttl=_TTL, schema=schema)])
    return store


def _same(folder: Path, first: str, run: Run, second: str, other: Run) -> None:
    """Run both once, which also warms them up, and compare every value."""
    os.environ[_KEEP] = "1"
    try:
        run()
        other()
    finally:
        del os.environ[_KEEP]
    ours, theirs = (pq.read_table(folder / f"{name}.result") for name in (first, second))
    filled = statistics.mean(1 - ours[name].null_count / ours.num_rows for name in _NAMES)
    if not ours.equals(theirs.cast(ours.schema)) or not 0.5 < filled < 1:
        raise RuntimeError(f"{first} and {second} differ, or {filled:.0%} of the values are there")
    print(f"{first} = {second} in all values, {filled:.0%} of them present", flush=True)


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    import ray

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1", RAY_worker_niceness="0")
    temporary = tempfile.mkdtemp(prefix="r", dir="/tmp")
    python_path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    ray.init(
        address="local",
        include_dashboard=False,
        object_store_memory=2 << 30,
        _temp_dir=temporary,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": python_path}},
    )
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)
