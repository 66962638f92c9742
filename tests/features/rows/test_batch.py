from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import DefinitionError
from headway.features.definitions import RowView
from headway.features.rows.batch import RowDecoder
from headway.features.rows.codec import Rank
from headway.features.status import Status
from tests.features.rows.row_views import CARD, DTYPES, a_row_view, put, shown, times, worlds


@given(worlds(), st.data())
@settings(max_examples=300, deadline=None)
def test_what_was_packed_is_decoded(
    world: tuple[list[RowView], list[list[tuple[Rank, list[Any]] | None]]], data: st.DataObject
) -> None:
    views, keys = world
    values: list[bytes | None] = []
    for key in keys:
        value = None
        for view, row in zip(views, key, strict=True):
            value = value if row is None else put(value, view, *row)
        values.append(value)
    n = data.draw(st.integers(0, 9))
    position = np.array(data.draw(st.lists(st.integers(-1, len(keys) - 1), min_size=n, max_size=n)), np.int64)
    if data.draw(st.booleans()):
        n, known_position = len(keys), None
        position = np.arange(n)
    else:
        known_position = position
    cutoff = data.draw(st.booleans())
    at = np.array(data.draw(st.lists(times, min_size=n, max_size=n)), np.int64)
    rows = RowDecoder(CARD, views, cutoff=cutoff).decode(values, known_position, at)
    columns, status = rows.columns(), list(rows.status.values())
    assert list(rows.status) == [view.name for view in views]
    assert set(columns) == {name for view in views for name in view.features}
    for i, view in enumerate(views):
        for line in range(n):
            kept = keys[position[line]][i] if position[line] >= 0 else None
            expected = Status.PRESENT
            if kept is None:
                expected = Status.MISSING
            elif kept[0][0] > at[line] or (cutoff and kept[0][1] > at[line]):
                expected = Status.TRUNCATED
            elif view.ttl is not None and at[line] - kept[0][0] > view.ttl:
                expected = Status.EXPIRED
            assert status[i][line] == expected
            for place, name in enumerate(view.features):
                true = kept[1][place] if kept is not None and expected == Status.PRESENT else None
                found = shown(columns[name], line)
                if columns[name].dtype == np.float64 and view.dtypes[place] in ("int64", "timestamp"):
                    true = None if true is None else float(true)
                assert found == true, (name, view.dtypes[place])


def test_columns_come_in_their_declared_types() -> None:
    view = a_row_view("v", *DTYPES)
    full = put(None, view, (1, 1, 1), [1.5, "a", 7, 2.5, True, 9])
    bare = put(None, view, (1, 1, 1), [None] * 6)
    decoder = RowDecoder(CARD, [view])

    def types(*values: bytes | None) -> list[str]:
        columns = decoder.decode(values, None, np.full(len(values), 5)).columns()
        return [columns[name].dtype.str for name in view.features]

    assert types(full, full) == ["<f4", "|O", "<i8", "<f8", "|b1", "<i8"]
    assert types(full, bare) == types(full, None) == ["<f4", "|O", "<f8", "<f8", "<f8", "<f8"]


def test_two_views_of_one_tag_are_refused() -> None:
    with pytest.raises(DefinitionError, match="tag"):
        RowDecoder(CARD, [a_row_view("v", "float32"), a_row_view("v", "float32")])


@given(worlds(), times)
@settings(max_examples=200, deadline=None)
def test_a_glance_at_one_key_tells_what_the_walk_tells(
    world: tuple[list[RowView], list[list[tuple[Rank, list[Any]] | None]]], at: int
) -> None:
    views, keys = world
    decoder = RowDecoder(CARD, views)
    for key in keys:
        value = None
        for view, row in zip(views, key, strict=True):
            value = value if row is None else put(value, view, *row)
        newest = max((row[0][0] for row in key if row is not None), default=at)
        for t in (at, newest, newest + 1):
            alone = decoder.decode([value], None, np.array([t]))
            beside = decoder.decode([value, value], None, np.array([t, t]))
            columns = beside.columns()
            assert {name: each.tolist() for name, each in alone.status.items()} == {
                name: each[:1].tolist() for name, each in beside.status.items()
            }
            assert alone.columns().keys() == columns.keys()
            for name, column in alone.columns().items():
                assert column.dtype == columns[name].dtype
                assert shown(column, 0) == shown(columns[name], 0)


def test_columns_of_a_glance_are_the_callers_own() -> None:
    view = a_row_view("v", "float32", "float32")
    value = put(None, view, (1, 1, 1), [1.0, 2.0])
    decoder = RowDecoder(CARD, [view])
    for _ in range(2):
        rows = decoder.decode([value], None, np.array([5]))
        rows.columns()[view.features[0]][0] = 9.0
        rows.status.clear()
    again = decoder.decode([value], None, np.array([5]))
    assert [column.tolist() for column in again.columns().values()] == [[1.0], [2.0]]
    assert [status.tolist() for status in again.status.values()] == [[Status.PRESENT]]
