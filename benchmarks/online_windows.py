"""Online windows: fraud's real plan, and a busy key with exact windows and with hop tiles."""

from __future__ import annotations

import asyncio

import numpy as np
import pyarrow as pa
import redis

from benchmarks.harness import Collector
from benchmarks.online_reads import OURS, SIZES, Effort, Server, one_core, record, runs, usage
from headway.core.clock import SystemClock
from headway.core.times import DAY, EVENT_TIME, KNOWN_TIME, MINUTE, SECOND
from headway.core.types import Columns
from headway.features.aggregates import count, largest, mean, std
from headway.features.definitions import Entity, EventSource, FeatureService, WindowView
from headway.features.online import OnlineReader
from headway.features.online_store import OnlineStore
from headway.features.windows import codec

_CARD = Entity(name="card", key="card")
_PAYMENTS = EventSource(
    name="payments", columns={"id": "int64", "card": "int64", "amount": "float64"}, id="id", bucket_by="card"
)
_AGGREGATES = (
    *count("1d", "7d", "30d"),
    *mean("amount", "1d", "7d", "30d", scale=100),
    *largest("amount", "7d", "30d", scale=100),
    *std("amount", "7d", scale=100),
)


def fraud(collector: Collector, runner: asyncio.Runner, server: Server, effort: Effort) -> None:
    """Measure the plan of `fraud_v1`, its views filled with a history that ends now."""
    from features.fraud import fraud_v1
    from features.simulators.fraud import tables

    history = tables(11, days=effort.days)
    last = max(int(table[EVENT_TIME].to_numpy().max()) for table in history.values())
    moved = {name: _moved(table, SystemClock().now() - MINUTE - last) for name, table in history.items()}
    url, now = server.url, SystemClock().now()
    store, client = OnlineStore(url), redis.Redis.from_url(url)
    for view in fraud_v1.stored:
        rows = moved[view.source.name]
        store.write(view, rows.filter(pa.array(rows[KNOWN_TIME].to_numpy() <= now)))
        store.set_watermark(view, now)
        if isinstance(view, WindowView):
            keys = client.keys(codec.prefix(view) + b"*")
            collector.add(OURS, f"window state, {view.name}", "memory per key", "bytes", usage(client, keys[:2_000]))
    store.close()
    reader = OnlineReader(fraud_v1, url, timeout_s=10.0)
    rows = moved["transactions"] if "transactions" in moved else next(iter(moved.values()))
    columns: Columns = {key: rows[key].to_numpy() for key in fraud_v1.keys}
    bars = {1: 0.3, 100: 2.0}
    random = np.random.default_rng(3)
    for size in SIZES:
        case = f"fraud_v1, {size} decisions"
        places = random.integers(0, rows.num_rows, (effort.calls[size], size))
        batches = [{key: column[place] for key, column in columns.items()} for place in places]
        record(collector, f"{case}, cores as they come", {OURS: runs(runner, reader, batches, effort)})
        with one_core(server):
            p50, _ = record(collector, case, {OURS: runs(runner, reader, batches, effort)})
        collector.hold(f"fraud_v1, p50 at {size} decisions", p50[OURS], "ms", "<=", bars[size])
    runner.run(reader.close())


def busy(collector: Collector, runner: asyncio.Runner, server: Server, effort: Effort) -> None:
    """Measure a key with many events in 40 days: its state and a read of it, nine aggregates up to 30 days."""
    url, now = server.url, SystemClock().now()
    random = np.random.default_rng(5)
    for events in (1_000, 10_000, 100_000):
        at = np.sort(now - MINUTE - random.integers(0, 40 * DAY, events))
        rows = pa.table(
            {
                "id": np.arange(events),
                "card": np.zeros(events, np.int64),
                "amount": random.integers(1, 100_000, events) / 100,
                EVENT_TIME: at,
                KNOWN_TIME: at + SECOND,
            }
        )
        for kind, declared in (("exact", {"max_events": events}), ("hop 1h", {"hop": "1h"})):
            view = WindowView(name="v", entity=_CARD, source=_PAYMENTS, aggregates=_AGGREGATES, **declared)
            store, client = OnlineStore(url), redis.Redis.from_url(url)
            store.write(view, rows)
            case = f"a key of {events:,} events, {kind}"
            collector.add(OURS, case, "memory per key", "bytes", usage(client, [codec.prefix(view) + b"0"]))
            reader = OnlineReader(FeatureService(name="busy", views=(view,), request={}), url, timeout_s=10.0)
            batches: list[Columns] = [{"card": np.zeros(1, np.int64)}] * (effort.calls[1] // 5)
            with one_core(server):
                record(collector, case, {OURS: runs(runner, reader, batches, effort)})
            runner.run(reader.close())
            store.clear(view)
            store.close()


def _moved(table: pa.Table, shift: int) -> pa.Table:
    times = {name: pa.array(table[name].to_numpy() + shift) for name in (EVENT_TIME, KNOWN_TIME)}
    return pa.table({name: times.get(name, table[name]) for name in table.column_names})
