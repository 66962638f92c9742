"""The velocity scene: a card nobody has seen pays many times, and what is decided a second later knows of it.

On a machine that takes longer the second decision waits until the burst is readable, and the pause is told.

It plays at the end of the replayed range, whose time goes on with the clock on the wall: so windows, the dates of the
monitor and the proof of no skew are those of any other decision.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headway.cluster.applications import base_url
from headway.cluster.compose import Installation
from headway.cluster.demo.plan import request_bodies
from headway.cluster.demo.prepare import Prepared
from headway.cluster.demo.traffic import TrafficClient
from headway.cluster.tokens import TokenSource
from headway.core.times import EVENT_TIME, KNOWN_TIME, MINUTE
from headway.features.aggregates import Statistic
from headway.features.definitions import EventSource, FeatureService, WindowView
from headway.features.online import OnlineReader
from headway.serving.events import PREFIX

BURST = 10
PAUSE_S = 1.0
_LATEST_S = 10.0
_POLL_S = 0.002
_STORE_S = 10.0
"""Longest wait for one read: the scene watches for long, and a stall is no result."""


@dataclass(frozen=True, kw_only=True)
class Velocity:
    """What the scene showed."""

    view: str
    features: tuple[str, ...]
    """Counts of the view, each of which has to grow by the burst."""
    decisions: tuple[str, str]
    """Ids of the decision before the burst, and of the one after it."""
    burst: int
    readable_ms: float | None
    """From the first event on its way to all of them in what a decision reads; None: not within seconds."""
    pause_s: float
    """Between the stream's receipt of the last event and the second decision."""


def counted(service: FeatureService, source: EventSource) -> tuple[WindowView, tuple[str, ...]] | None:
    """Return the first view of the source whose counts see a burst at once, and these counts; None: there is none."""
    for view in service.views:
        if isinstance(view, WindowView) and view.source.name == source.name and (view.max_events or BURST) >= BURST:
            found = tuple(
                name
                for name, aggregate in zip(view.features, view.aggregates, strict=True)
                if aggregate.statistic is Statistic.COUNT
                and not aggregate.offset
                and (aggregate.window is None or aggregate.window >= MINUTE)
            )
            if found:
                return view, found
    return None


def stranger(view: WindowView, like: pa.Table, now: int) -> pa.Table:
    """Return one row like another, of a key and an id that no history has: made of the present, new in each run."""
    names = (view.entity.keys[0], view.source.id)
    return _with(like, {name: f"new-{now}" if like.schema.field(name).type == pa.string() else now for name in names})


def burst_of(row: pa.Table, source: EventSource, *, at: int, now: int, count: int = BURST) -> pa.Table:
    """Return so many events like a row, a microsecond apart up to `at`, with ids that nobody else uses."""
    moments = [at - (count - 1 - i) for i in range(count)]
    text = row.schema.field(source.id).type == pa.string()
    ids = [f"new-{now}-{i}" if text else now + i for i in range(count)]
    rows = pa.concat_tables([row] * count)
    for name, values in ((source.id, ids), (EVENT_TIME, moments), (KNOWN_TIME, moments)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, rows.schema.field(name).type))
    return rows


def velocity(at: Installation, ready: Prepared, until: int) -> Velocity | None:
    """Play the scene at a time that was replayed up to, UTC microseconds; None where no view counts what is decided."""
    service, source = at.service(ready.history.use_case), ready.history.requests
    found = counted(service, source)
    if found is None:
        return None
    table = ready.tables[source.name]
    last = int(np.searchsorted(table[EVENT_TIME].to_numpy(), until)) - 1
    row = stranger(found[0], table.slice(last, 1), at.clock.now())
    return asyncio.run(_play(at, ready.history.use_case, service, found, row, until))


async def _play(
    at: Installation,
    use_case: str,
    service: FeatureService,
    found: tuple[WindowView, tuple[str, ...]],
    row: pa.Table,
    begin: int,
) -> Velocity:
    view, counts = found
    source, zero = view.source, time.monotonic()
    keys = {name: np.array(row[name].to_pylist()) for name in service.keys}

    def moment() -> int:
        return begin + round((time.monotonic() - zero) * 1e6)

    async def decide() -> str:
        (body,) = request_bodies(service, _with(row, {EVENT_TIME: moment()}))
        (decision,) = (await till.post(f"/{use_case}/v1/decisions", body))["decisions"]
        return str(decision["decision_id"])

    async def count() -> float:
        rows = await reader.read(keys, np.array([moment()]))
        return float(rows.columns[counts[0]][0])

    scopes = [f"decide:{use_case}", f"replay:{use_case}", f"ingest:{source.name}"]
    purpose = at.contract(use_case).contract.privacy.purposes[0]
    token = TokenSource(at.settings, sub="demo-till", scopes=scopes, purpose=purpose)
    reader = OnlineReader(service, at.settings.redis_features_url, timeout_s=_STORE_S)
    async with TrafficClient(base_url(at), token) as till:
        try:
            before = await decide()
            await count()  # the first read takes longest
            events = burst_of(row, source, at=moment(), now=at.clock.now())
            watching = asyncio.create_task(_reached(count))
            sent = time.monotonic()
            await till.post(f"{PREFIX}/{source.name}", {"events": events.to_pylist()})
            received = time.monotonic()
            await asyncio.sleep(PAUSE_S)
            seen = await watching
            pause = time.monotonic() - received
            after = await decide()
        finally:
            await reader.close()
    return Velocity(
        view=view.name,
        features=counts,
        decisions=(before, after),
        burst=events.num_rows,
        readable_ms=None if seen is None else (seen - sent) * 1e3,
        pause_s=pause,
    )


async def _reached(count: Callable[[], Awaitable[float]]) -> float | None:
    """Return when the whole burst was counted first."""
    deadline = time.monotonic() + _LATEST_S
    while time.monotonic() < deadline:
        if await count() == BURST:
            return time.monotonic()
        await asyncio.sleep(_POLL_S)
    return None


def grew(shown: Velocity, log: pa.Table) -> Mapping[str, tuple[float, float]]:
    """Return each count as the decisions before and after the burst saw it; nothing where the log lacks one of them."""
    ids = log["decision_id"].to_pylist()
    if not set(shown.decisions) <= set(ids):
        return {}
    before, after = (ids.index(decision) for decision in shown.decisions)
    return {
        name: (float(np.nan_to_num(log[name][before].as_py() or 0.0)), float(log[name][after].as_py() or 0.0))
        for name in shown.features
    }


def _with(row: pa.Table, values: Mapping[str, Any]) -> pa.Table:
    for name, value in values.items():
        place = row.schema.get_field_index(name)
        row = row.set_column(place, name, pa.array([value], row.schema.field(name).type))
    return row
