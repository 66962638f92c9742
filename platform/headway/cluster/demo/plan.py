"""What is replayed when: pure functions from a history to chunks of events, requests and outcomes.

Decisions carry `as_of`, and reads see only what was known by then, so events may be ingested ahead of the requests of
their chunk without any request seeing its future.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.times import EVENT_TIME, KNOWN_TIME, format_time, parse_time
from headway.features.definitions import FeatureService
from headway.features.history import History


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One stretch of replayed time."""

    until: int
    """UTC microseconds: every event known by then is in this chunk or an earlier one."""
    events: Mapping[str, pa.Table]
    """Source name → rows that became known in this stretch."""
    requests: pa.Table
    """Sampled decision rows, by event_time."""


def chunks(
    history: History, tables: Mapping[str, pa.Table], *, start: int, until: int, limit: int, pieces: int
) -> Iterator[Chunk]:
    """Yield `pieces` stretches of [start, until) with `limit` requests in all, evenly sampled.

    Args:
        history: names the request source.
        tables: source name → all rows, with event_time and known_time as int64 microseconds.
        start: first replayed time, UTC microseconds.
        until: end of the replay.
        limit: how many of the range's requests are sent.
        pieces: how many chunks, each with the same number of requests.
    """
    requests = tables[history.requests.name]
    times = _column(requests, EVENT_TIME)
    live = np.flatnonzero((times >= start) & (times < until))
    live = live[np.argsort(times[live], kind="stable")]
    chosen = live[np.unique(np.linspace(0, len(live) - 1, min(limit, len(live))).astype(np.int64))]
    edge = start
    parts = np.array_split(chosen, pieces)
    for index, part in enumerate(parts):
        end = until if index == len(parts) - 1 or not len(part) else int(times[part[-1]]) + 1
        events = {}
        for source in history.sources:
            known = _column(tables[source.name], KNOWN_TIME)
            rows = tables[source.name].filter((known >= edge) & (known < end))
            if rows.num_rows:
                events[source.name] = rows
        yield Chunk(until=end, events=events, requests=requests.take(part))
        edge = end


def request_bodies(service: FeatureService, requests: pa.Table) -> list[dict[str, Any]]:
    """Return one `/v1/decisions` body per row: keys, request columns, the event's id and `as_of`."""
    own = [service.event_id] if service.event_id in requests.column_names else []
    names = [*dict.fromkeys([*service.keys, *service.request, *own])]
    rows = requests.select(names).to_pylist()
    moments = _column(requests, EVENT_TIME)
    return [{"rows": [row], "as_of": format_time(int(moment))} for row, moment in zip(rows, moments, strict=True)]


def due_outcomes(
    history: History, tables: Mapping[str, pa.Table], served: Mapping[Any, str], until: int
) -> list[dict[str, Any]]:
    """Return `/v1/outcomes` entries for served requests whose label is known by `until`.

    Args:
        history: names the outcome source, its id and its label.
        tables: source name → all rows.
        served: event id → decision id.
        until: UTC microseconds.
    """
    table = tables[history.outcomes.name]
    known = table.filter(_column(table, KNOWN_TIME) <= until)
    wanted = known.filter(pa.compute.is_in(known[history.outcomes.id], value_set=pa.array(list(served))))
    columns = [wanted[name].to_pylist() for name in (history.outcomes.id, history.label, EVENT_TIME, KNOWN_TIME)]
    return [
        {
            "decision_id": served[event],
            "label": label,
            "event_time": format_time(event_time),
            "known_time": format_time(known_time),
        }
        for event, label, event_time, known_time in zip(*columns, strict=True)
    ]


def live_range(history: History) -> tuple[int, int]:
    """Return the range that the core story replays, up to the drift if there is one; UTC microseconds, half-open."""
    end = history.drift_from or history.live_until
    return parse_time(history.live_from, field="live_from"), parse_time(end, field="live_until")


def _column(table: pa.Table, name: str) -> Any:
    return table[name].to_numpy()
