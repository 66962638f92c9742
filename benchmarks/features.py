"""Online features: Feast's stock Redis store against `OnlineReader`, on one server, over one unix socket, in turn.

Plain: 50 float features over five views of one entity, ttl one day. Both Feast and the reader hand over an answer that
still has to be unpacked; what it takes with all 50 values in hand, from `to_dict` and from `columns`, is given too.
Fraud: the real plan, window state of both entities filled with 60 simulated days. Busy: one key with many events, its
windows exact and of hop tiles. Memory is the server's MEMORY USAGE of every key. The reader runs under uvloop as it
does in replicas. Latencies are per call, as the caller sees them; a figure is the median of the runs'.

Caller and server share one core where a bar is measured: between the cores of a virtual machine a wake-up costs some
70 µs, several times a read, and the scheduler's choice would decide the result. Latencies without that are given too.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import redis
import uvloop

from benchmarks.harness import Collector, Report
from benchmarks.online_reads import OURS, SIZES, Effort, Server, calls, one_core, record, start_server, timed, usage
from benchmarks.online_windows import busy, fraud
from headway.core.clock import SystemClock
from headway.core.times import DAY, EVENT_TIME, KNOWN_TIME, MINUTE, SECOND
from headway.features.definitions import Entity, EventSource, FeatureService, RowView
from headway.features.online import OnlineReader
from headway.features.online_store import OnlineStore
from headway.features.rows.codec import row_prefix

FEAST, PLUGIN = "feast redis", "feast with headway's store"
_VIEWS, _COLUMNS = 5, 10
_CARD = Entity(name="card", key="card")
_NAMES = [f"f{number}" for number in range(_VIEWS * _COLUMNS)]


def benchmark(*, quick: bool = False) -> Report:
    """Run everything and return the report."""
    effort = Effort(runs=7, entities=2_000, calls={1: 1_000, 100: 500}, days=60)
    if quick:
        effort = Effort(runs=2, entities=200, calls={1: 200, 100: 50}, days=14)
    collector = Collector("features")
    with (
        tempfile.TemporaryDirectory(prefix="hf") as folder,
        start_server(Path(folder)) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        _plain(collector, runner, Path(folder), server, effort)
        redis.Redis.from_url(server.url).flushall()
        fraud(collector, runner, server, effort)
        busy(collector, runner, server, effort)
    return collector.report()


def _plain(collector: Collector, runner: asyncio.Runner, folder: Path, server: Server, effort: Effort) -> None:
    """Measure 50 floats over five views: latency in turn, then memory."""
    url, table = server.url, _rows(effort.entities)
    client = redis.Redis.from_url(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast warns about itself
        stock = _repository(folder / "stock", {"type": "redis", "connection_string": _feast_address(url)}, table)
        keys = client.keys("*")
        stored = _memory(client, keys) / effort.entities
        plugin = {"type": "headway.features.online_store.PackedRedisOnlineStore", "connection_string": url}
        packed = _repository(folder / "packed", plugin, table)
    service, store = _service(sources=1), OnlineStore(url)
    for view in service.stored:
        store.write(view, table)
        store.set_watermark(view, SystemClock().now())
    memory = _memory(client, client.keys(row_prefix(_CARD) + b"*")) / effort.entities
    reader = OnlineReader(service, url, timeout_s=10.0)
    runner.run(_same(stock, reader))
    gc.collect()
    gc.freeze()  # as replicas do
    systems = [(FEAST, stock), (PLUGIN, packed)]
    for size in SIZES:
        case = f"50 floats in 5 views, {size} entities"
        record(collector, f"{case}, cores as they come", _in_turn(runner, systems, reader, size, effort))
        with one_core(server):
            times = _in_turn(runner, systems, reader, size, effort)
            unpacked = _in_turn(runner, [(FEAST, stock)], reader, size, effort, unpack=True)
        _, p99 = record(collector, case, times)
        faster = _faster(collector, case, times)
        record(collector, f"{case}, with all values in hand", unpacked)
        _faster(collector, f"{case}, with all values in hand", unpacked)
        collector.hold(f"p50 at {size} entities, Feast over ours, paired", faster, "times", ">=", 25.0)
        if size == max(SIZES):
            collector.hold(f"p99 at {size} entities", p99[OURS], "ms", "<=", 1.0)
    runner.run(reader.close())
    collector.add(FEAST, "50 floats in 5 views", "memory per entity", "bytes", [stored])
    collector.add(OURS, "50 floats in 5 views, one source", "memory per entity", "bytes", [memory])
    collector.hold("memory per entity, one source, ours over Feast's", memory / stored, "times", "<=", 0.4)
    for late in (0, SECOND):
        for view in service.stored:
            store.clear(view)
        service = _service(sources=_VIEWS)
        for number, view in enumerate(service.stored):
            store.write(view, _rows(effort.entities, source=number, late=late))
        worse = _memory(client, client.keys(row_prefix(_CARD) + b"*")) / effort.entities
        case = "50 floats in 5 views, five sources" + (", known 1 s after the event" if late else "")
        collector.add(OURS, case, "memory per entity", "bytes", [worse])
        what = f"memory per entity,{case.partition(',')[2]}, ours over Feast's"
        collector.hold(what, worse / stored, "times", "<=", 0.4)
    store.close()


def _in_turn(
    runner: asyncio.Runner,
    repositories: Sequence[tuple[str, Any]],
    reader: OnlineReader,
    size: int,
    effort: Effort,
    *,
    unpack: bool = False,
) -> dict[str, list[list[float]]]:
    """Return system → seconds per call, per run; the systems take turns within each run.

    With `unpack` a call ends when every value is in a dictionary.
    """
    random = np.random.default_rng(size)
    times: dict[str, list[list[float]]] = {name: [] for name in (*(name for name, _ in repositories), OURS)}
    references = [f"v{number // _COLUMNS}:{name}" for number, name in enumerate(_NAMES)]
    for run in range(effort.runs + 1):
        picks = [random.choice(effort.entities, size, replace=False) for _ in range(effort.calls[size])]
        for name, repository in repositories:
            taken = []
            for pick in picks[:: 10 if size > 1 else 1]:
                rows = [{"card": card} for card in pick.tolist()]
                begin = time.perf_counter()
                found = repository.get_online_features(features=references, entity_rows=rows)
                if unpack:
                    found.to_dict()
                taken.append(time.perf_counter() - begin)
            times[name].append(taken)
        times[OURS].append(runner.run(timed(calls(reader, [{"card": pick} for pick in picks]), unpack=unpack)))
        if run == 0:
            for system in times.values():  # caches and connections are warm now
                system.clear()
    return times


def _faster(collector: Collector, case: str, times: dict[str, list[list[float]]]) -> float:
    """Record by how much we are faster than Feast, paired by run, and return the median."""
    pairs = zip(times[FEAST], times[OURS], strict=True)
    ratios = [float(np.median(theirs) / np.median(ours)) for theirs, ours in pairs]
    return collector.add(OURS, case, "p50, Feast over ours", "times", ratios)


async def _same(repository: Any, reader: OnlineReader) -> None:
    """Refuse to compare systems that answer differently."""
    cards = np.arange(20)
    found = await reader.read({"card": cards}, np.full(20, SystemClock().now(), np.int64))
    references = [f"v{number // _COLUMNS}:{name}" for number, name in enumerate(_NAMES)]
    rows = [{"card": card} for card in cards.tolist()]
    expected = repository.get_online_features(features=references, entity_rows=rows).to_dict()
    for number, name in enumerate(_NAMES):
        ours = found.columns[f"v{number // _COLUMNS}__{name}"]
        if ours.tolist() != expected[name]:
            raise RuntimeError(f"{name} differs from Feast's")


def _service(*, sources: int) -> FeatureService:
    columns = {"id": "int64", "card": "int64", **dict.fromkeys(_NAMES, "float32")}
    of = [EventSource(name=f"facts{i}", columns=columns, id="id", bucket_by="card") for i in range(sources)]
    views = tuple(
        RowView(
            name=f"v{i}", entity=_CARD, source=of[i % sources], ttl=DAY,
            columns=tuple(_NAMES[i * _COLUMNS : (i + 1) * _COLUMNS]),
        )
        for i in range(_VIEWS)
    )  # fmt: skip
    return FeatureService(name="plain", views=views, request={})


def _rows(entities: int, *, source: int = 0, late: int = 0) -> pa.Table:
    """Return one row per entity, an hour old and an hour more per source, with ids of the source."""
    random = np.random.default_rng(7)
    event_time = np.full(entities, SystemClock().now() - 60 * MINUTE * (1 + source), np.int64)
    values = random.random((len(_NAMES), entities), np.float32)
    return pa.table(
        {
            "id": np.arange(entities) + 1_000_000 + 10_000_000 * source,
            "card": np.arange(entities),
            EVENT_TIME: event_time,
            KNOWN_TIME: event_time + late,
            **dict(zip(_NAMES, values, strict=True)),
        }
    )


def _repository(folder: Path, online: dict[str, str], table: pa.Table) -> Any:
    """Return a Feast repository with the same five views, filled."""
    import feast
    from feast.types import Float32

    folder.mkdir()
    frame = table.to_pandas().drop(columns=["id", KNOWN_TIME])
    frame[EVENT_TIME] = [datetime.fromtimestamp(t / SECOND, UTC) for t in table[EVENT_TIME].to_pylist()]
    frame.head(1).to_parquet(folder / "rows.parquet")
    store = feast.FeatureStore(
        config=feast.RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=online,
            entity_key_serialization_version=3,
        )
    )
    card = feast.Entity(name="card", join_keys=["card"], value_type=feast.ValueType.INT64)
    source = feast.FileSource(path=str(folder / "rows.parquet"), timestamp_field=EVENT_TIME)
    views = [
        feast.FeatureView(
            name=f"v{i}",
            entities=[card],
            ttl=timedelta(days=1),
            schema=[feast.Field(name=name, dtype=Float32) for name in _NAMES[i * _COLUMNS : (i + 1) * _COLUMNS]],
            source=source,
        )
        for i in range(_VIEWS)
    ]
    store.apply([card, *views])
    for view in views:
        names = [feature.name for feature in view.features]
        store.write_to_online_store(view.name, frame[["card", EVENT_TIME, *names]])
    return store


def _memory(client: Any, keys: Sequence[bytes]) -> float:
    return float(sum(usage(client, keys)))


def _feast_address(url: str) -> str:
    """Return a connection string that takes Feast's stock store over the same socket."""
    return f"localhost:0,unix_socket_path={url.removeprefix('unix://')}"
