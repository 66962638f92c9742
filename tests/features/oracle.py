"""The definition of a window aggregate, written as slowly and plainly as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from headway.core.times import DAY
from headway.features.aggregates import (
    Aggregate,
    Statistic,
    count,
    distinct,
    largest,
    last,
    mean,
    since_first,
    since_last,
    smallest,
    std,
    total,
)
from headway.features.definitions import Entity, EventSource, WindowView


@dataclass(frozen=True)
class Event:
    key: int
    event_time: int
    known_time: int
    id: int
    value: int | None
    taken_back: int | None = None
    """From when on it does not count."""


CARD = Entity(name="card", key="card")
SOURCE = EventSource(
    name="payments",
    columns={"payment": "int64", "card": "int64", "amount": "float64"},
    id="payment",
    bucket_by="card",
    buckets=4,
    purposes=("testing",),
)


def a_view(
    max_events: int | None = 1_000, retention: int | None = None, name: str = "activity", hop: str | None = None
) -> WindowView:
    windows = ("10us", "40us")
    return WindowView(
        name=name,
        entity=CARD,
        source=SOURCE,
        aggregates=(
            *count(*windows),
            *count("20us", offset="15us"),
            *total("amount", *windows, scale=100),
            *mean("amount", *windows, scale=100),
            *smallest("amount", *windows, scale=100),
            *std("amount", *windows, scale=100),
            *distinct("amount", *windows),
            *largest("amount", *windows, scale=100),
            *last("amount", *windows, scale=100),
            *since_first("40us"),
            *since_last("40us"),
        ),
        max_events=max_events,
        hop=hop,
        retention=retention,
    )


def endless_view(max_events: int) -> WindowView:
    return WindowView(
        name="ever",
        entity=CARD,
        source=SOURCE,
        aggregates=(*count(), *total("amount", scale=100), *last("amount", scale=100), *since_first()),
        max_events=max_events,
    )


def once(events: Sequence[Event]) -> list[Event]:
    """A repeated id is the same event: the first known one counts."""
    kept: dict[tuple[int, int], Event] = {}
    for event in sorted(events, key=lambda e: (e.known_time, e.event_time, -(2**63) if e.value is None else e.value)):
        kept.setdefault((event.key, event.id), event)
    return sorted(kept.values(), key=lambda e: (e.event_time, e.known_time, e.id))


def retained(view: WindowView, events: Sequence[Event], key: int, t: int, cutoff: bool) -> list[Event]:
    own = once([e for e in events if e.key == key])
    known = [e for e in own if e.event_time <= t and (e.known_time <= t or not cutoff)]
    known = [e for e in known if e.taken_back is None or (cutoff and e.taken_back > t)]
    return known if view.max_events is None else known[max(0, len(known) - view.max_events) :]


def feature(view: WindowView, a: Aggregate, events: Sequence[Event], key: int, t: int, cutoff: bool) -> np.float32:
    inside = []
    for event in retained(view, events, key, t, cutoff):
        counts_at = event.event_time
        while view.step and counts_at % view.step:
            counts_at += 1  # the edge of its tile
        early = a.window is not None and counts_at <= t - a.offset - a.window
        forgotten = view.retention is not None and counts_at <= t - view.retention
        if not early and not forgotten and (counts_at <= t - a.offset or a.offset == 0):
            inside.append(event)
    values = [e.value for e in inside if e.value is not None]
    nothing = np.float32(np.nan)
    match a.statistic:
        case Statistic.COUNT:
            return np.float32(len(inside))
        case Statistic.SUM:
            return np.float32(float(sum(values)) / a.scale)
        case Statistic.MEAN:
            return np.float32(float(sum(values)) / len(values) / a.scale) if values else nothing
        case Statistic.STD:
            if not values:
                return nothing
            average = Fraction(sum(values), len(values))
            return np.float32(np.sqrt(float(sum((v - average) ** 2 for v in values) / len(values))) / a.scale)
        case Statistic.DISTINCT:
            return np.float32(len(set(values)))
        case Statistic.MIN:
            return np.float32(float(min(values)) / a.scale) if values else nothing
        case Statistic.MAX:
            return np.float32(float(max(values)) / a.scale) if values else nothing
        case Statistic.LAST:
            newest = inside[-1].value if inside else None
            return nothing if newest is None else np.float32(float(newest) / a.scale)
        case Statistic.SINCE_FIRST:
            return np.float32(float(t - inside[0].event_time) / DAY) if inside else nothing
        case Statistic.SINCE_LAST:
            return np.float32(float(t - inside[-1].event_time) / DAY) if inside else nothing


def arrays(events: Sequence[Event]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return {
        "card": np.array([e.key for e in events], np.int64),
        "event_time": np.array([e.event_time for e in events], np.int64),
        "known_time": np.array([e.known_time for e in events], np.int64),
        "payment": np.array([e.id for e in events], np.int64),
        "amount": np.array([-(2**63) if e.value is None else e.value for e in events], np.int64),
    }
