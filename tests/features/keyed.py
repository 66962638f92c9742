"""Views of a key of two columns whose texts collide, and what they are worth, as slowly and plainly as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from headway.features.aggregates import count, last, total
from headway.features.definitions import AliasedView, Entity, EventSource, FeatureService, RowView, View, WindowView
from tests.features.oracle import Event, feature

PARTS = ("1", "11", "1:", "\\", ":", "", "None")
TTL = 60


@dataclass(frozen=True)
class Visit:
    user: str | None
    shop: str | None
    event_time: int
    known_time: int
    id: int
    amount: int


def service_of(bucket_by: str) -> FeatureService:
    """Window and row views of the composite key, of one of its columns, and both under aliases."""
    source = EventSource(
        name="visits",
        columns={"visit": "int64", "user": "string", "shop": "string", "amount": "float64"},
        id="visit",
        bucket_by=bucket_by,
        buckets=3,
        purposes=("testing",),
    )
    place = Entity(name="place", key=("user", "shop"), dtype="string")
    user = Entity(name="user", key="user", dtype="string")
    aggregates = (*count("40us"), *total("amount", "90us"), *last("amount", "90us"))
    at_place = WindowView(name="at_place", entity=place, source=source, aggregates=aggregates, max_events=100)
    tiled = WindowView(name="tiled", entity=place, source=source, aggregates=aggregates, hop="1us")
    facts = RowView(name="facts", entity=place, source=source, columns=("amount", "visit"), ttl=TTL)
    ever = WindowView(name="by_user", entity=user, source=source, aggregates=aggregates, max_events=100)
    person = RowView(name="person", entity=user, source=source, columns=("amount",))
    return FeatureService(
        name="places",
        views=(
            at_place,
            ever,
            facts,
            tiled,
            tiled.aliased("home_tiled", key={"shop": "home_shop"}),
            at_place.aliased("home", key={"shop": "home_shop"}),
            facts.aliased("home_facts", key={"shop": "home_shop"}),
            facts.aliased("payee", key={"user": "payee", "shop": "home_shop"}),
            ever.aliased("payees", key={"user": "payee"}),
            person.aliased("payee_person", key={"user": "payee"}),
        ),
        request={},
    )


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    """Keys that collide as text or have a null part, close times, late arrivals."""
    part = st.one_of(st.none(), st.sampled_from(PARTS))
    rows = st.tuples(part, part, st.integers(0, 120), st.integers(0, 60), st.integers(-99, 99))
    return [
        Visit(user, shop, at, at + late, number, amount)
        for number, (user, shop, at, late, amount) in enumerate(draw(st.lists(rows, max_size=40)))
    ]


def visits_table(history: Sequence[Visit]) -> pa.Table:
    return pa.table(
        {
            "visit": pa.array([v.id for v in history], pa.int64()),
            "user": pa.array([v.user for v in history], pa.string()),
            "shop": pa.array([v.shop for v in history], pa.string()),
            "amount": pa.array([v.amount / 1 for v in history], pa.float64()),
            "event_time": pa.array([v.event_time for v in history], pa.int64()),
            "known_time": pa.array([v.known_time for v in history], pa.int64()),
        }
    )


def expected(view: View | AliasedView, history: Sequence[Visit], row: dict[str, Any]) -> list[Any]:
    """Return the values of a view's features for a row of keys and event_time, with the cutoff on."""
    stored = view.stored
    key, t = tuple(row[name] for name in view.keys), row["event_time"]
    own = [
        v
        for v in history
        if None not in key
        and tuple(getattr(v, name) for name in stored.entity.keys) == key
        and v.event_time <= t
        and v.known_time <= t
    ]
    if isinstance(stored, WindowView):
        events = [Event(0, v.event_time, v.known_time, v.id, v.amount) for v in own]
        return [feature(stored, aggregate, events, 0, t, True) for aggregate in stored.aggregates]
    newest = max(own, key=lambda v: (v.event_time, v.known_time, v.id), default=None)
    if newest is None or (stored.ttl is not None and t - newest.event_time > stored.ttl):
        return [None] * len(stored.columns)
    return [{"amount": newest.amount, "visit": newest.id}[name] for name in stored.columns]
