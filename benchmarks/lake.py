"""`python -m benchmarks lake`: how fast one committer commits, and how quick a table stays that is committed to often.

Upkeep runs at the ratio of production: a step of compaction after so many appends, expiry after so many more.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import Collector, Report
from headway.core.clock import SystemClock
from headway.core.times import MINUTE, SECOND
from headway.core.types import Principal
from headway.features.committer import Committer
from headway.features.committer_actor import APPENDS_PER_COMPACTION, APPENDS_PER_EXPIRY
from headway.features.lake import Location, TableSpec, write_spool
from headway.features.lake_layout import FAN, TARGET, tier
from headway.features.reader import LakeReader
from headway.governance.audit_event import MemoryAudit

CARDS = 200_000
SPEC = TableSpec(
    name="events.payments",
    columns={
        "payment": "int64", "card": "int64", "terminal": "int64", "amount": "float64", "fee": "float64",
        "country": "string", "category": "string", "online": "bool",
    },
    bucket_by="card",
    purposes=("benchmark",),
)  # fmt: skip


def benchmark(*, quick: bool) -> Report:
    """Run all cases."""
    collector = Collector("lake")
    folder = Path(tempfile.mkdtemp(prefix="headway-lake-"))
    try:
        for run in range(1 if quick else 3):
            _throughput(collector, folder / f"throughput{run}", 8 if quick else 48)
        _often(collector, folder, 200 if quick else 2_000, 2_500, 3 if quick else 15)
    finally:
        shutil.rmtree(folder)
    rates = [result.median for result in collector.results if result.metric == "rows"]
    collector.hold("rows committed", float(np.median(rates)), "rows/s", ">=", 200_000)
    return collector.report()


def _throughput(collector: Collector, folder: Path, batches: int) -> None:
    """Spooled batches of 100,000 rows, each committed for itself, with the upkeep that they make due."""
    committer, spool = Committer(_place(folder)), folder / "spool"
    committer.ensure(SPEC)
    paths = [write_spool(spool, f"b{number}", events(number, 100_000)) for number in range(batches)]
    waits = []
    start = time.perf_counter()
    for number, path in enumerate(paths, start=1):
        begin = time.perf_counter()
        committer.append(SPEC, path, path.stem)
        waits += [time.perf_counter() - begin, *upkeep(committer, number)]
    seconds = time.perf_counter() - start
    case = f"{batches} batches of 100,000 rows"
    collector.add("headway", case, "rows", "rows/s", [batches * 100_000 / seconds])
    collector.add("headway", case, "longest step", "s", [max(waits)])


def _often(collector: Collector, folder: Path, commits: int, rows: int, runs: int) -> None:
    """Small commits with upkeep, and the same rows in a table that has just been compacted whole."""
    often, fresh = Committer(_place(folder / "often")), Committer(_place(folder / "fresh"))
    waits = []
    start = time.perf_counter()
    for number in range(1, commits + 1):
        often.append(SPEC, events(number, rows), f"b{number}")
        waits += upkeep(often, number)
    collector.add("headway", f"{commits:,} commits", "commits", "1/s", [commits / (time.perf_counter() - start)])
    collector.add("headway", f"{commits:,} commits", "longest step of upkeep", "s", [max(waits, default=0.0)])
    fresh.append_many(SPEC, [(events(number, rows), f"b{number}") for number in range(1, commits + 1)])
    while fresh.compact_step(SPEC.name, whole=True).left:
        pass
    readers = {"after commits": _reader(folder / "often"), "freshly compacted": _reader(folder / "fresh")}
    who = Principal(sub="b", kind="ci", scopes=frozenset({"data:read"}), purpose="benchmark", expires=2**62)
    files = {name: len(reader.plan(SPEC, who, "benchmark").files) for name, reader in readers.items()}
    for what, read in _reads(who).items():
        times: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(runs):
            for name, reader in readers.items():
                begin = time.perf_counter()
                read(reader)
                times[name].append(time.perf_counter() - begin)
        medians = {name: collector.add("headway", what, name, "s", times[name]) for name in readers}
        ratio = medians["after commits"] / medians["freshly compacted"]
        collector.hold(f"{what} after {commits:,} commits, to freshly compacted", ratio, "x", "<=", 1.2)
    for name, count in files.items():
        collector.add("headway", f"{commits:,} commits", f"files {name}", "files", [count])
    bound = SPEC.buckets * (FAN * (tier(TARGET) + 1)) + 2 * files["freshly compacted"]
    collector.hold(f"files after {commits:,} commits", files["after commits"], "files", "<=", bound)


def upkeep(committer: Committer, appends: int) -> list[float]:
    """Do what the actor does after so many appends; return the seconds of each step."""
    seconds = []
    left = appends % APPENDS_PER_COMPACTION == 0
    while left:
        begin = time.perf_counter()
        left = bool(committer.compact_step(SPEC.name).left)
        seconds.append(time.perf_counter() - begin)
    if appends % APPENDS_PER_EXPIRY == 0:
        begin = time.perf_counter()
        committer.expire_step(SPEC.name)
        seconds.append(time.perf_counter() - begin)
    return seconds


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


def _reads(who: Principal) -> dict[str, Callable[[LakeReader], pa.Table]]:
    return {
        "read of all": lambda reader: reader.scan(SPEC, who, "benchmark"),
        "read of one bucket": lambda reader: reader.scan(SPEC, who, "benchmark", bucket=3),
        "read of two columns": lambda reader: reader.scan(SPEC, who, "benchmark", columns=["card", "amount"]),
    }


def _place(folder: Path) -> Location:
    return Location(catalog_uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")


def _reader(folder: Path) -> LakeReader:
    clock = SystemClock()
    return LakeReader(_place(folder), MemoryAudit(clock), clock)
