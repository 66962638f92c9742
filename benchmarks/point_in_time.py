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
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.join_data import KEEP, NAMES, ROOT, TTL, Data, Run, label_rows, lake_of, make, make_large, service_of
from benchmarks.join_feast import duckdb_peer, feature_store

if TYPE_CHECKING:  # the peer's Python lacks what the harness needs
    from benchmarks.harness import Collector, Report

_BUCKETED, _UNBUCKETED = "headway, bucketed table", "headway, Feast store on plain files"
_POLARS, _LATE, _DUCKDB = "polars, one process", "polars, features gathered late", "feast duckdb store"


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
            data = make(work, labels, rows, keys)
            bucketed, unbucketed = _bucketed(data), _unbucketed(data)
            polars, late = _polars(data, late=False), _polars(data, late=True)
            for name, run in ((_UNBUCKETED, unbucketed), (_POLARS, polars), (_LATE, late)):
                _same(data.folder, _BUCKETED, bucketed, name, run)
            fast = _pairs(collector, data, (_BUCKETED, bucketed), (_POLARS, polars), pairs + 2)
            plain = _pairs(collector, data, (_UNBUCKETED, unbucketed), (_POLARS, polars), pairs + 2)
            _pairs(collector, data, (_BUCKETED, bucketed), (_LATE, late), pairs)
            with duckdb_peer(data) as (feast, versions):
                _same(data.folder, _BUCKETED, bucketed, _DUCKDB, feast)
                over = _pairs(collector, data, (_BUCKETED, bucketed), (_DUCKDB, feast), pairs)
            rates = _scaling(collector, work, rows, keys, (labels, 3 * labels, 10 * labels))
            sizes = (1_000_000, 2_000_000, keys) if quick else (10_000_000, 20_000_000, 1_000_000)
            even, hot = (_memory(collector, *sizes, hot=share) for share in (0.0, 0.5))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    collector.hold("bucketed, label rows/s over Feast with DuckDB", over, "times", ">=", 5.0)
    collector.hold("bucketed, label rows/s over one Polars process", fast, "times", ">=", 1.0)
    collector.hold("plain files, label rows/s over one Polars process", plain, "times", ">=", 0.5)
    collector.hold("ten times the labels, label rows/s against once", rates[-1] / rates[0], "times", ">=", 0.8)
    at_scale = f"{sizes[0] // 10**6}M labels x {sizes[1] // 10**6}M rows"
    collector.hold(f"{at_scale}, memory of all workers", even, "GiB", "<=", 4.0)
    collector.hold(f"{at_scale}, half of both of one key, memory of all workers", hot, "GiB", "<=", 4.0)
    report = collector.report()
    peers = {name: importlib.metadata.version(name) for name in ("polars", "feast", "pyiceberg", "numba")}
    return msgspec.structs.replace(report, versions={**report.versions, **peers, "duckdb (feast)": versions})


def _pairs(collector: Collector, data: Data, ours: tuple[str, Run], theirs: tuple[str, Run], pairs: int) -> float:
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
        data = Data(folder=work, labels=label_rows(size, keys, seed=size), rows=rows)
        run = _bucketed(data)
        rates.append(collector.add(_BUCKETED, data.case, "label rows", "rows/s", [size / run() for _ in range(3)]))
        print(f"{_BUCKETED}, {data.case}: {rates[-1]:,.0f} label rows/s", flush=True)
    return rates


def _memory(collector: Collector, labels: int, rows: int, keys: int, *, hot: float) -> float:
    """Return the largest resident memory of all workers together, GiB, while a large join runs."""
    from benchmarks.worker_memory import sampled

    work = Path(tempfile.mkdtemp(prefix="hb"))
    try:
        data = make_large(work, labels, rows, keys, hot=hot)
        join = _bucketed(data)
        with sampled() as peak:
            seconds = join()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    case = f"{data.case}, {hot:.0%} of one key" if hot else data.case
    for metric, size in (
        ("resident, all workers", peak.workers),
        ("resident, largest worker", peak.largest),
        ("resident, caller", peak.driver),
    ):
        collector.add(_BUCKETED, case, metric, "GiB", [size / 2**30])
    collector.add(_BUCKETED, case, "label rows", "rows/s", [labels / seconds])
    print(
        f"{_BUCKETED}, {case}: {labels / seconds:,.0f} label rows/s, workers {peak.workers / 2**30:.2f} GiB, "
        f"largest {peak.largest / 2**30:.2f}, caller {peak.driver / 2**30:.2f}",
        flush=True,
    )
    return peak.workers / 2**30


def _timed(data: Data, system: str, work: Callable[[], pa.Table]) -> Run:
    """Return a run that keeps its last result for comparison."""

    def run() -> float:
        begin = time.perf_counter()
        found = work()
        seconds = time.perf_counter() - begin
        if KEEP in os.environ:
            table = pa.table({name: pa.array(found[f"{name}"]).cast(pa.float32()) for name in NAMES})
            pq.write_table(table, data.folder / f"{system}.result")
        return seconds

    return run


def _bucketed(data: Data) -> Run:
    """Return the join of the lake's table, which is bucketed by key, as training does it."""
    import ray

    from headway.core.clock import SystemClock
    from headway.core.types import Principal
    from headway.features.historical import training_set
    from headway.features.lake.reader import LakeReader
    from headway.governance.audit_event import MemoryAudit

    clock, service = SystemClock(), service_of()
    reader = LakeReader(lake_of(data.folder), MemoryAudit(clock), clock)
    scopes = frozenset({"data:read"})
    who = Principal(sub="b", kind="workload", scopes=scopes, purpose="benchmark", expires=2**62)
    spine = data.labels.rename_columns(["driver_id", "event_time"])

    def join() -> Any:
        return training_set(spine, service, reader, who, "benchmark", cutoff=False)

    def run() -> float:
        begin = time.perf_counter()
        dataset = join()
        seconds = time.perf_counter() - begin
        if KEEP in os.environ:
            table = pa.concat_tables(ray.get(dataset.to_arrow_refs())).sort_by("row_id")
            kept = pa.table({name: table[f"stats__{name}"] for name in NAMES})
            pq.write_table(kept, data.folder / f"{_BUCKETED}.result")
        return seconds

    return run


def _unbucketed(data: Data) -> Run:
    """Return Feast's own call on our store, on one plain Parquet file."""
    store = feature_store(data.folder, "headway.features.offline_store.RayPointInTimeOfflineStore")
    frame, features = data.labels.to_pandas(), [f"stats:{name}" for name in NAMES]

    def join() -> pa.Table:
        return store.get_historical_features(entity_df=frame, features=features).to_arrow()

    return _timed(data, _UNBUCKETED, join)


def _polars(data: Data, *, late: bool) -> Run:
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
                tolerance=TTL,
                check_sortedness=False,
            )
            .sort("label")
            .collect()
        )
        if late:
            values = pl.read_parquet(data.folder / "stats.parquet", columns=list(NAMES))
            joined = pl.concat([joined, values[joined["row"]]], how="horizontal")
        return joined.to_arrow()

    return _timed(data, _LATE if late else _POLARS, join)


def _same(folder: Path, first: str, run: Run, second: str, other: Run) -> None:
    """Run both once, which also warms them up, and compare every value."""
    os.environ[KEEP] = "1"
    try:
        run()
        other()
    finally:
        del os.environ[KEEP]
    ours, theirs = (pq.read_table(folder / f"{name}.result") for name in (first, second))
    filled = statistics.mean(1 - ours[name].null_count / ours.num_rows for name in NAMES)
    if not ours.equals(theirs.cast(ours.schema)) or not 0.5 < filled < 1:
        raise RuntimeError(f"{first} and {second} differ, or {filled:.0%} of the values are there")
    print(f"{first} = {second} in all values, {filled:.0%} of them present", flush=True)


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    import ray

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1", RAY_worker_niceness="0")
    temporary = tempfile.mkdtemp(prefix="r", dir="/tmp")
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
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
