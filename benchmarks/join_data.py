"""The joins' data: label rows in memory, one source as plain Parquet and as a lake table bucketed by key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
KEEP = "HEADWAY_BENCHMARKKEEP"
"""Set: runs keep their results for comparison."""
Run = Callable[[], float]
"""Does the work once and returns its seconds."""
NAMES = tuple(f"f{i}" for i in range(10))
TTL = timedelta(days=30)
SPAN = int(timedelta(days=180) / timedelta(microseconds=1))
CHUNK = 1_250_000
START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
TIME = pa.timestamp("us", "UTC")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the inputs of one size are, and the label rows."""

    folder: Path
    labels: pa.Table
    rows: int

    @property
    def case(self) -> str:
        """What is measured, in words."""
        return f"{self.labels.num_rows:,} labels x {self.rows:,} rows x {len(NAMES)} features"


def label_rows(labels: int, keys: int, seed: int) -> pa.Table:
    """Return label rows of random keys at random times."""
    rng = np.random.default_rng(seed)
    at = START + rng.integers(0, SPAN, labels)
    return pa.table({"driver_id": rng.integers(0, keys, labels), "event_timestamp": pa.array(at).cast(TIME)})


def make(work: Path, labels: int, rows: int, keys: int) -> Data:
    """Write one source as plain Parquet and as a bucketed lake table; one row in a hundred ties with another."""
    from headway.core.clock import SystemClock
    from headway.features.lake.committer import Committer

    rng = np.random.default_rng(1)
    key, event = rng.integers(0, keys, rows), START + rng.integers(0, SPAN, rows)
    tied = rng.integers(0, rows // 2, rows // 100)
    key[rows // 2 + tied], event[rows // 2 + tied] = key[tied], event[tied]
    created = event + rng.permutation(rows)
    values = {name: rng.random(rows, np.float32) for name in NAMES}
    times = {"event_timestamp": pa.array(event).cast(TIME), "created": pa.array(created).cast(TIME)}
    pq.write_table(
        pa.table({"driver_id": key, **times, **values}),
        work / "stats.parquet",
        row_group_size=250_000,
        compression="zstd",
    )
    table = pa.table({"id": np.arange(rows), "driver_id": key, **values, "event_time": event, "known_time": created})
    Committer(lake_of(work), SystemClock()).append(service_of().views[0].source, table, "all")
    return Data(folder=work, labels=label_rows(labels, keys, seed=2), rows=rows)


def lake_of(work: Path) -> Any:
    """Return a lake in a folder."""
    from headway.features.lake.tables import Location

    return Location(catalog_uri=f"sqlite:///{work}/lake/catalog.db", warehouse=f"file://{work}/lake/warehouse")


def service_of() -> Any:
    """Return a service of one row view with a lifetime."""
    from headway.features.definitions import Entity, EventSource, FeatureService, RowView

    source = EventSource(
        name="stats",
        columns={"id": "int64", "driver_id": "int64", **dict.fromkeys(NAMES, "float32")},
        id="id",
        bucket_by="driver_id",
        buckets=8,
        purposes=("benchmark",),
    )
    driver = Entity(name="driver", key="driver_id")
    ttl = TTL // timedelta(microseconds=1)
    return FeatureService(
        name="stats", views=(RowView(name="stats", entity=driver, source=source, columns=NAMES, ttl=ttl),), request={}
    )


def make_large(work: Path, labels: int, rows: int, keys: int, *, hot: float) -> Data:
    """Write a bucketed lake table chunk by chunk, so that neither this process nor the disk holds it twice.

    Chunks come in the order of time, as events do. Key 0 has the share `hot` of the source rows and of the label rows.
    """
    from headway.core.clock import SystemClock
    from headway.features.lake.committer import Committer

    committer, source = Committer(lake_of(work), SystemClock()), service_of().views[0].source
    for first in range(0, rows, CHUNK):
        rng = np.random.default_rng(first + 10)
        n = min(CHUNK, rows - first)
        event = START + rng.integers(SPAN * first // rows, SPAN * (first + n) // rows, n)
        key = np.where(rng.random(n) < hot, 0, rng.integers(0, keys, n))
        values = {name: rng.random(n, np.float32) for name in NAMES}
        ids, created = np.arange(first, first + n), event + rng.permutation(n)
        table = pa.table({"id": ids, "driver_id": key, **values, "event_time": event, "known_time": created})
        committer.append(source, table, f"chunk {first}")
    asked = label_rows(labels, keys, seed=9)
    chosen = np.random.default_rng(8).random(labels) < hot
    key = np.where(chosen, 0, asked["driver_id"].to_numpy())
    return Data(folder=work, labels=asked.set_column(0, "driver_id", pa.array(key)), rows=rows)
