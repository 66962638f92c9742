"""Feast as the joins' peer: its repository over the plain file, and its DuckDB store in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.join_data import KEEP, NAMES, ROOT, TTL, Data, Run

_PEER = """
import os, sys, time, warnings
from importlib.metadata import version
warnings.filterwarnings("ignore")
import pyarrow as pa, pyarrow.parquet as pq
sys.path.insert(0, os.getcwd())
from benchmarks.join_data import NAMES
from benchmarks.join_feast import feature_store
from pathlib import Path
folder = Path(sys.argv[1])
store, frame = feature_store(folder, "duckdb"), pq.read_table(folder / "labels.parquet").to_pandas()
frame["label"] = range(len(frame))
print("ready", ",".join(f"{n}={version(n)}" for n in ("duckdb", "ibis-framework", "pyarrow")), flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    found = store.get_historical_features(entity_df=frame.copy(), features=[f"stats:{n}" for n in NAMES]).to_arrow()
    seconds = time.perf_counter() - begin
    if line.strip() == "keep":
        pq.write_table(found.sort_by("label").select(list(NAMES)), folder / "feast duckdb store.result")
    print("seconds", seconds, flush=True)
"""


@contextlib.contextmanager
def duckdb_peer(data: Data) -> Iterator[tuple[Run, str]]:
    """Start Feast with its DuckDB store in a process of its own; yield its run and the versions it runs on."""
    pq.write_table(data.labels, data.folder / "labels.parquet")
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen(
        [sys.executable, "-c", _PEER, str(data.folder)],
        cwd=ROOT, env=clean, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
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
        process.stdin.write("keep\n" if KEEP in os.environ else "run\n")
        process.stdin.flush()
        return float(answer())

    try:
        yield run, answer()
    finally:
        process.stdin.close()
        process.wait(30)


def feature_store(folder: Path, kind: str) -> Any:
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
    schema = [Field(name=name, dtype=Float32) for name in NAMES]
    store.apply([driver, FeatureView(name="stats", entities=[driver], source=source, ttl=TTL, schema=schema)])
    return store
