from __future__ import annotations

import asyncio
import dataclasses
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.core.errors import DefinitionError
from headway.features.arrow import events_of, locate
from headway.features.definitions import EventSource, FeatureService, RowView, WindowView
from headway.features.online import OnlineReader
from headway.features.online_store import OnlineStore
from headway.features.windows.columns import WindowColumns, window_columns
from tests.features.oracle import CARD, Event, a_view, feature

SOURCE = EventSource(
    name="orders",
    columns={"payment": "int64", "card": "int64", "amount": "float64", "cancelled": "bool"},
    id="payment",
    bucket_by="card",
    retracts="cancelled",
)
VIEW = dataclasses.replace(a_view(), source=SOURCE)
ROWS = [(key, t) for key in range(3) for t in range(0, 200, 13)]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events with an id each, some taken back once, before or after they became known themselves."""
    made = []
    for number, (key, at) in enumerate(draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 120)), max_size=25))):
        back = draw(st.one_of(st.none(), st.integers(at - 5, at + 60)))
        made.append(Event(key, at, at + draw(st.integers(0, 40)), number, draw(st.integers(-99, 99)), back))
    return made


def rows_of(history: list[Event]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for e in history:
        row = {"payment": e.id, "card": e.key, "amount": e.value, "event_time": e.event_time}
        rows.append({**row, "known_time": e.known_time, "cancelled": False})
        if e.taken_back is not None:
            rows.append({**row, "amount": None, "known_time": e.taken_back, "cancelled": True})
    return rows


def table(rows: list[dict[str, object]]) -> pa.Table:
    types = {"payment": pa.int64(), "card": pa.int64(), "amount": pa.float64(), "cancelled": pa.bool_()}
    schema = pa.schema([*types.items(), ("event_time", pa.int64()), ("known_time", pa.int64())])
    return pa.Table.from_pylist(rows, schema)


def agrees(
    found: WindowColumns | dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]], history: list[Event]
) -> None:
    columns = found.columns if isinstance(found, WindowColumns) else found
    scaled = [dataclasses.replace(e, value=None if e.value is None else e.value * 100) for e in history]
    for name, aggregate in zip(VIEW.features, VIEW.aggregates, strict=True):
        expected = np.array([feature(VIEW, aggregate, scaled, k, t, True) for k, t in ROWS], np.float32)
        np.testing.assert_array_equal(columns[name].view(np.int32), expected.view(np.int32), err_msg=name)


@given(histories(), st.randoms())
@settings(max_examples=150, deadline=None)
def test_an_event_counts_until_it_is_taken_back(history: list[Event], order: random.Random) -> None:
    rows = rows_of(history)
    order.shuffle(rows)
    events = events_of(VIEW, table(rows))
    keys, at = np.array([key for key, _ in ROWS]), np.array([t for _, t in ROWS], np.int64)
    agrees(window_columns(VIEW, events, locate(events.keys, keys), at), history)


@given(histories(), st.randoms(), st.integers(1, 4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_online_agrees_however_the_rows_arrive(
    online_url: str, history: list[Event], order: random.Random, writes: int
) -> None:
    rows = rows_of(history)
    order.shuffle(rows)
    store = OnlineStore(online_url)
    store.clear(VIEW)
    for part in range(writes):
        store.write(VIEW, table(rows[part::writes]))
    store.close()
    service = FeatureService(name="s", views=(VIEW,), request={})

    async def read() -> dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]:
        reader = OnlineReader(service, online_url)
        keys = {"card": np.array([key for key, _ in ROWS])}
        found = await reader.read(keys, np.array([t for _, t in ROWS], np.int64))
        await reader.close()
        return found.columns  # type: ignore[return-value]  # window features are float32

    agrees(asyncio.run(read()), history)


def test_a_source_names_a_bool_column_and_row_views_refuse_it() -> None:
    with pytest.raises(DefinitionError, match=r"orders\.retracts"):
        dataclasses.replace(SOURCE, retracts="amount")
    with pytest.raises(DefinitionError, match=r"profile\.source"):
        RowView(name="profile", entity=CARD, source=SOURCE, columns=("amount",))


def test_another_shape_of_record_gets_other_keys() -> None:
    from headway.features.windows import codec

    plain: WindowView = dataclasses.replace(VIEW, source=dataclasses.replace(SOURCE, retracts=None))
    assert codec.prefix(plain) != codec.prefix(VIEW)
