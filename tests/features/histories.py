"""Histories, label rows and services of the joins' tests."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headway.core.types import Columns
from headway.features.aggregates import count, mean
from headway.features.definitions import Entity, EventSource, FeatureService, RowView, WindowView
from headway.features.transformations import transformation
from tests.features.oracle import Event, a_view, endless_view
from tests.features.samples import table

SHOP = EventSource(
    name="sales",
    columns={"sale": "int64", "card": "int64", "shop": "string", "amount": "float64"},
    id="sale",
    bucket_by="card",
    buckets=3,
    purposes=("testing",),
)


BY_SHOP = WindowView(
    name="by_shop",
    entity=Entity(name="shop", key="shop", dtype="string"),
    source=SHOP,
    aggregates=(*count("40us"), *mean("amount", "40us", scale=100)),
    max_events=100,
)


@transformation(inputs=("amount", "event_time", "activity__count_40us"), outputs=("odd",))
def odd(columns: Columns) -> Columns:
    uneven = columns["event_time"].astype(np.int64) % 2 == 1
    return {"odd": np.where(uneven, columns["amount"], columns["activity__count_40us"])}


SERVICE = FeatureService(
    name="both", views=(a_view(), endless_view(30), BY_SHOP), request={"amount": "float32"}, transformations=(odd,)
)


def a_history(n: int, seed: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(0, 3_000, n))
    late = np.where(rng.random(n) < 0.1, rng.integers(0, 200, n), 1)
    keys = rng.integers(0, 20, n)
    values = [None if rng.random() < 0.02 else int(v) for v in rng.integers(-5_000, 5_000, n)]
    return [
        Event(int(k), int(t), int(t + d), i, v)
        for i, (k, t, d, v) in enumerate(zip(keys, at, late, values, strict=True))
    ]


def sales(history: list[Event]) -> pa.Table:
    rows = table(history).rename_columns(["sale", "card", "amount", "event_time", "known_time"])
    return rows.append_column("shop", pa.array([f"shop {e.key % 5}" for e in history]))


def a_spine(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    cards = [None if i % 50 == 0 else int(k) for i, k in enumerate(rng.integers(0, 24, n))]
    return pa.table(
        {
            "note": [f"row {i}" for i in range(n)],
            "card": pa.array(cards, pa.int64()),
            "shop": pa.array([None if c is None else f"shop {c % 7}" for c in cards]),
            "amount": rng.random(n) * 100,
            "event_time": rng.integers(-10, 3_500, n),
        }
    )


LIMITS = EventSource(
    name="limits",
    columns={
        "change": "string",
        "card": "int64",
        "shop": "string",
        "limit": "float32",
        "score": "float64",
        "visits": "int64",
        "blocked": "bool",
        "tier": "string",
        "since": "timestamp",
    },
    id="change",
    bucket_by="card",
    buckets=3,
    purposes=("testing",),
)


FACTS = ("limit", "score", "visits", "blocked", "tier", "since")


BY_CARD = RowView(name="facts", entity=Entity(name="card", key="card"), source=LIMITS, columns=FACTS, ttl=400)


OF_SHOP = RowView(
    name="shop_facts", entity=Entity(name="shop", key="shop", dtype="string"), source=LIMITS, columns=("tier", "visits")
)


MIXED = FeatureService(name="mixed", views=(a_view(), BY_CARD, BY_SHOP, OF_SHOP), request={"amount": "float32"})


def limits(n: int, seed: int) -> pa.Table:
    """Few times, so that ties are common; late rows and nulls too."""
    rng = np.random.default_rng(seed)
    at = rng.integers(0, 150, n) * 20
    cards = rng.integers(0, 20, n)

    def some(values: list[object]) -> list[object]:
        return [None if empty else value for value, empty in zip(values, rng.random(n) < 0.2, strict=True)]

    return pa.table(
        {
            "change": [f"c{i}" for i in rng.permutation(n)],
            "card": pa.array(cards, pa.int64()),
            "shop": pa.array([None if i % 40 == 0 else f"shop {c % 5}" for i, c in enumerate(cards)]),
            "limit": pa.array(some(rng.random(n).tolist()), pa.float32()),
            "score": pa.array(some(rng.random(n).tolist()), pa.float64()),
            "visits": pa.array(some(rng.integers(2**53, 2**60, n).tolist()), pa.int64()),
            "blocked": pa.array(some((rng.random(n) < 0.5).tolist()), pa.bool_()),
            "tier": pa.array(some([f"tier {i % 7}" for i in range(n)]), pa.string()),
            "since": pa.array(some(rng.integers(0, 10**12, n).tolist()), pa.int64()),
            "event_time": at,
            "known_time": at + rng.choice([1, 1, 60], n),
        }
    )


def same(found: pa.Table, expected: pa.Table) -> None:
    assert found.column_names == expected.column_names
    for name in expected.column_names:
        a, b = found[name].to_numpy(), expected[name].to_numpy()
        assert a.tobytes() == b.tobytes() if a.dtype != object else a.tolist() == b.tolist(), name
