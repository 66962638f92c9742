"""Row views, rows and whole stores of them, drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from headway.features.definitions import Entity, EventSource, RowView
from headway.features.rows.codec import Rank, Row, encode, row_layout
from headway.features.rows.scan import LONG
from headway.features.rows.value import replace

CARD = Entity(name="card", key="card")
DTYPES = ("float32", "string", "int64", "float64", "bool", "timestamp")


def a_row_view(name: str, *dtypes: str, ttl: int | None = None) -> RowView:
    columns = {f"c{i}": dtype for i, dtype in enumerate(dtypes)}
    source = EventSource(
        name="facts", columns={"id": "int64", "card": "int64", **columns}, id="id", bucket_by="card", purposes=("t",)
    )
    return RowView(name=name, entity=CARD, source=source, columns=tuple(columns), ttl=ttl)


def packed(view: RowView, rank: Rank, values: list[Any]) -> Row:
    columns = []
    nulls = {}
    for place, (value, dtype) in enumerate(zip(values, view.dtypes, strict=True)):
        if dtype == "string":
            columns.append(np.array([value], object))
        elif value is None and dtype in ("float32", "float64"):
            columns.append(np.array([np.nan], dtype))
        else:
            nulls[place] = np.array([value is None])
            columns.append(np.array([value or 0], np.int64 if dtype == "timestamp" else dtype))
    event_time, known_time, ids = (np.array([part]) for part in rank)
    return encode(row_layout(view), event_time, known_time, ids, columns, nulls)[0]


def put(value: bytes | None, view: RowView, rank: Rank, values: list[Any]) -> bytes:
    new, _ = replace(value, CARD, row_layout(view).tag, packed(view, rank, values))
    assert new is not None
    return new


def shown(column: Any, row: int) -> Any:
    value = column[row]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


times = st.integers(-(2**50), 2**52)
ranks = st.tuples(times, times, st.integers(-(2**63), 2**63 - 1)).map(
    lambda r: (r[0], r[0] + (r[1] % 3) * (r[1] % 5_000), r[2]) if r[1] % 4 else r
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float32": st.none() | st.floats(width=32, allow_nan=False),
    "float64": st.none() | st.floats(allow_nan=False),
    "int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "timestamp": st.none() | st.integers(-(2**63), 2**63 - 1),
    "bool": st.none() | st.booleans(),
    "string": st.none() | st.text(max_size=8) | st.just("é" * LONG),
}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[RowView], list[list[tuple[Rank, list[Any]] | None]]]:
    """Views, and per key and view a row or none."""
    views = [
        a_row_view(
            f"v{i}", *draw(st.lists(st.sampled_from(DTYPES), max_size=6)), ttl=draw(st.none() | st.integers(1, 2**52))
        )
        for i in range(draw(st.integers(1, 4)))
    ]
    shared = draw(ranks)
    keys = [
        [
            draw(st.none() | st.tuples(st.just(shared) | ranks, st.tuples(*(VALUES[d] for d in view.dtypes)).map(list)))
            for view in views
        ]
        for _ in range(draw(st.integers(0, 7)))
    ]
    return views, keys
