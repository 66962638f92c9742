"""`python -m benchmarks lake`: how fast one committer commits, and how quick a table stays that is committed to often.

It runs what the actor of a cluster runs: group commit, and upkeep beside it at the ratio of production.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Collector, Report
from headway.core.clock import SystemClock
from headway.core.times import MINUTE, SECOND
from headway.core.types import Principal
from headway.features.lake.committer import Committer
from headway.features.lake.group_commit import GroupCommit
from headway.features.lake.layout import FAN, TARGET, tier
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location, TableSpec, write_spool
from headway.features.lake.upkeep import Upkeep
from headway.governance.audit_event import MemoryAudit

CARDS = 200_000
WRITERS = 8
SPEC = TableSpec(
    name="events.payments",
    columns={
        "payment": "int64", "card": "int64", "terminal": "int64", "amount": "float64", "fee": "float64",
        "country": "string", "category": "string", "online": "bool",
    },
    bucket_by="card",
    purposes=("benchmark",),
)  # fmt: skip

WHO = Principal(sub="b", kind="ci", scopes=frozenset({"data:read"}), purpose="benchmark", expires=2**62)
READS: dict[str, dict[str, Any]] = {
    "read of all": {},
    "read of one bucket": {"bucket": 3},
    "read of two columns": {"columns": ["card", "amount"]},
}


def benchmark(*, quick: bool) -> Report:
    """Run all cases."""
    collector = Collector("lake")
    folder = Path(tempfile.mkdtemp(prefix="headway-lake-"))
    try:
        for run in range(1 if quick else 3):
            _throughput(collector, folder / f"throughput{run}", 8 if quick else 24)
        for run in range(1 if quick else 3):
            _writers(collector, folder / f"writers{run}", 5 if quick else 8)
        _often(collector, folder / "often", 200 if quick else 2_000, 2_500, 5 if quick else 25)
    finally:
        shutil.rmtree(folder)
    rates = [result.median for result in collector.results if result.metric == "rows"]
    collector.hold("rows committed", float(np.median(rates)), "rows/s", ">=", 200_000)
    return collector.report()


def _throughput(collector: Collector, folder: Path, batches: int) -> None:
    """Spooled batches of 100,000 rows, each committed for itself, until the upkeep that they make due is done too."""
    commits, upkeep, _ = _lake(folder)
    paths = [write_spool(folder / "spool", f"b{number}", events(number, 100_000)) for number in range(batches)]
    waits = []
    start = time.perf_counter()
    for path in paths:
        begin = time.perf_counter()
        commits.append_many(SPEC, [(path, path.stem)])
        waits.append(time.perf_counter() - begin)
    upkeep.settle()
    seconds = time.perf_counter() - start
    case = f"{batches} batches of 100,000 rows"
    collector.add("headway", case, "rows", "rows/s", [batches * 100_000 / seconds])
    collector.add("headway", case, "append, upkeep beside it", "s", waits)


def _writers(collector: Collector, folder: Path, each: int) -> None:
    """Eight threads that append small batches one after another: committed together, and each for itself."""
    for how in ("grouped", "one by one"):
        commits, _, committer = _lake(folder / how)
        append = commits.append_many if how == "grouped" else committer.append_many

        def write(writer: int, append: Callable[..., int] = append) -> None:
            for number in range(each):
                append(SPEC, [(events(writer * each + number, 100), f"w{writer}-{number}")])

        start = time.perf_counter()
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, range(WRITERS)))
        rate = WRITERS * each / (time.perf_counter() - start)
        collector.add("headway", f"{WRITERS} writers of 100 rows", f"batches committed, {how}", "1/s", [rate])


def _often(collector: Collector, folder: Path, count: int, rows: int, runs: int) -> None:
    """Small commits with upkeep, and the same table after it has been compacted whole.

    Both are snapshots of one table, so that they differ by nothing but their files and manifests.
    """
    commits, upkeep, committer = _lake(folder)
    case = f"{count:,} commits"
    waits = []
    start = time.perf_counter()
    for number in range(1, count + 1):
        data = events(number, rows)
        begin = time.perf_counter()
        commits.append_many(SPEC, [(data, f"b{number}")])
        waits.append(time.perf_counter() - begin)
    collector.add("headway", case, "commits", "1/s", [count / (time.perf_counter() - start)])
    collector.add("headway", case, "append, upkeep beside it", "s", waits)
    begin = time.perf_counter()
    upkeep.settle()
    collector.add("headway", case, "upkeep left at the end", "s", [time.perf_counter() - begin])
    reader = LakeReader(_place(folder), MemoryAudit(SystemClock()), SystemClock())
    snapshots = {"after commits": reader.snapshot(SPEC)}
    while committer.compact_step(SPEC.name, whole=True).left:
        pass
    snapshots["freshly compacted"] = reader.snapshot(SPEC)
    files = {name: len(reader.plan(SPEC, WHO, "benchmark", snapshot_id=at).files) for name, at in snapshots.items()}
    for what, given in READS.items():
        times: dict[str, list[float]] = {name: [] for name in snapshots}
        for run in range(-1, runs):
            for name in snapshots if run % 2 else reversed(snapshots):
                begin = time.perf_counter()
                reader.scan(SPEC, WHO, "benchmark", snapshot_id=snapshots[name], **given)
                if run >= 0:
                    times[name].append(time.perf_counter() - begin)
        medians = {name: collector.add("headway", what, name, "s", times[name]) for name in snapshots}
        pairs = [one / other for one, other in zip(*times.values(), strict=True)]
        collector.add("headway", what, "ratio of each pair", "x", pairs)
        ratio = medians["after commits"] / medians["freshly compacted"]
        collector.hold(f"{what} after {case}, to freshly compacted", ratio, "x", "<=", 1.2)
    for name, number in files.items():
        collector.add("headway", case, f"files {name}", "files", [number])
    bound = SPEC.buckets * (FAN * (tier(TARGET) + 1)) + 2 * files["freshly compacted"]
    collector.hold(f"files after {case}", files["after commits"], "files", "<=", bound)


def _lake(folder: Path) -> tuple[GroupCommit, Upkeep, Committer]:
    """Return a new lake as the actor of a cluster has it."""
    committer = Committer(_place(folder))
    committer.ensure(SPEC)
    upkeep = Upkeep(committer, MemoryAudit(SystemClock()))
    return GroupCommit(committer, upkeep.appended), upkeep, committer


def events(number: int, rows: int) -> pa.Table:
    """Return the rows of one batch, in the order of time."""
    random = np.random.default_rng(number)
    at = number * MINUTE + np.sort(random.integers(0, MINUTE, rows))
    return pa.table(
        {
            "payment": number * 1_000_000 + np.arange(rows),
            "card": random.integers(0, CARDS, rows),
            "terminal": random.integers(0, 10_000, rows),
            "amount": np.round(random.lognormal(3.0, 1.0, rows), 2),
            "fee": np.round(random.random(rows), 2),
            "country": np.array(["DE", "FR", "NL", "GB"])[random.integers(0, 4, rows)],
            "category": np.array(["food", "fuel", "travel", "rent", "games"])[random.integers(0, 5, rows)],
            "online": random.random(rows) < 0.3,
            "event_time": at,
            "known_time": at + SECOND,
        }
    )


def _place(folder: Path) -> Location:
    return Location(catalog_uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
