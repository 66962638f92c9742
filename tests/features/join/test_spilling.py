"""Joins whose inputs are several times the object store, in a small Ray of a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BIG = """
import sys
import numpy as np, pyarrow as pa, ray
from headway.core.clock import ManualClock
from headway.core.types import Principal
from headway.features.lake.committer import Committer
from headway.features.definitions import Entity, EventSource, FeatureService, RowView
from headway.features.historical import training_set
from headway.features.lake.tables import Location
from headway.features.lake.reader import LakeReader
from headway.governance.audit_event import MemoryAudit

STORE, CHUNKS, ROWS, SHOPS = 80 << 20, 10, 600_000, 20_000
folder = sys.argv[1]
names = tuple(f"f{i}" for i in range(4))
source = EventSource(name="sales", id="sale", bucket_by="card", buckets=4, purposes=("testing",),
                     columns={"sale": "int64", "card": "int64", "shop": "int64", **dict.fromkeys(names, "float64")})
lake = Location(catalog_uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
clock, rng, volume = ManualClock(10**15), np.random.default_rng(0), 0
writer = Committer(lake, clock)
for chunk in range(CHUNKS):
    shop = np.where(rng.random(ROWS) < 0.5, 0, rng.integers(0, SHOPS, ROWS))
    at = chunk * ROWS + np.arange(ROWS)
    rows = pa.table({"sale": at, "card": rng.integers(0, 1000, ROWS), "shop": shop, "f0": at + 0.5,
                     **{name: rng.random(ROWS) for name in names[1:]}, "event_time": at, "known_time": at})
    volume += rows.nbytes
    writer.append(source, rows, f"{chunk}")
del rows, shop
assert volume > 4 * STORE, volume
by_shop = RowView(name="shop", entity=Entity(name="shop", key="shop"), source=source, columns=names)
service = FeatureService(name="big", views=(by_shop,), request={})
n = 60_000
spine = pa.table({"shop": np.where(rng.random(n) < 0.5, 0, rng.integers(0, SHOPS, n)),
                  "event_time": rng.integers(ROWS, CHUNKS * ROWS, n)})
ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=STORE, log_to_driver=False,
         _temp_dir=sys.argv[2])
analyst = Principal(sub="ana", kind="human", scopes=frozenset({"data:read"}), purpose="testing", expires=2 * 10**15)
reader = LakeReader(lake, MemoryAudit(clock), clock)
data = training_set(spine, service, reader, analyst, "testing", rows_per_task=10_000)
found = pa.concat_tables(data.iter_batches(batch_format="pyarrow", batch_size=None)).sort_by("row_id")
assert ray.cluster_resources()["object_store_memory"] <= STORE
assert found["shop"].equals(pa.chunked_array([spine["shop"].combine_chunks()]))
# the newest row of the hot shop is at most some rows old, and every value is of the row that its f0 names
hot = np.flatnonzero(spine["shop"].to_numpy() == 0)
newest, at = found["shop__f0"].to_numpy()[hot] - 0.5, spine["event_time"].to_numpy()[hot]
assert (newest <= at).all() and (at - newest < 60).all()
assert found["shop__f0"].null_count < n / 100
from ray._private.internal_api import memory_summary
assert "Spilled" in memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
print("finished")
"""


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.ray
def test_an_exchanged_source_several_times_the_object_store(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Half of the rows are of one key, so that one bucket alone is larger than the object store."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BIG, str(tmp_path), str(tmp_path_factory.mktemp("r"))],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.strip().endswith("finished")
