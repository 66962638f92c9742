from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import CorruptState, DefinitionError
from headway.features.definitions import Entity, EventSource, RowView
from headway.features.row_batch import RowDecoder
from headway.features.row_codec import Rank, Row, encode, row_layout
from headway.features.row_value import LONG, MAGIC, RESIDUE, replace, unpack
from headway.features.windows import Status

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


def test_an_older_or_equal_row_changes_nothing() -> None:
    view = a_row_view("v", "float32")
    tag = row_layout(view).tag
    value = put(None, view, (10, 12, 3), [1.0])
    for older in ((9, 99, 9), (10, 11, 9), (10, 12, 2), (10, 12, 3)):
        assert replace(value, CARD, tag, packed(view, older, [2.0])) == (None, False)
    for newer in ((11, 0, 0), (10, 13, 0), (10, 12, 4)):
        assert replace(value, CARD, tag, packed(view, newer, [2.0]))[1] is True


def test_views_share_a_value_and_leave_it_one_by_one() -> None:
    one, two = a_row_view("one", "float32"), a_row_view("two", "float32", "string")
    value = put(put(None, two, (5, 5, 1), [2.0, "x"]), one, (5, 5, 1), [1.0])
    assert [row.rank for row in unpack(value, CARD).values()] == [(5, 5, 1)] * 2
    left, _ = replace(value, CARD, row_layout(two).tag, None)
    assert left == put(None, one, (5, 5, 1), [1.0])
    assert replace(left, CARD, row_layout(two).tag, None) == (None, False)
    assert replace(left, CARD, row_layout(one).tag, None)[0] == b""
    assert replace(None, CARD, row_layout(one).tag, None)[0] is None


def test_five_views_of_ten_floats_of_one_source_take_235_bytes() -> None:
    value = None
    for i in range(5):
        value = put(value, a_row_view(f"v{i}", *["float32"] * 10), (1_700_000_000_000_000,) * 2 + (1,), [1.0] * 10)
    assert value is not None
    assert len(value) == 235


def test_the_residue_is_that_of_any_whole_value() -> None:
    assert zlib.crc32(b"anything" + struct.pack("<I", zlib.crc32(b"anything"))) == RESIDUE


def test_foreign_and_cut_values_are_reported() -> None:
    view = a_row_view("v", "float32", "string")
    good = put(None, view, (1, 1, 1), [1.0, "abc"])
    body = MAGIC + b"\0" * 9
    sealed = [text + struct.pack("<I", zlib.crc32(text)) for text in (body, b"x" + good[1:-4], good[:-6], MAGIC + good)]
    for wrong in (b"", b"x", good[:-1], good[:-1] + b"\0", *sealed):
        with pytest.raises(CorruptState, match="materialize"):
            RowDecoder(CARD, [view]).decode([wrong], None, np.array([5]))
        with pytest.raises(CorruptState):
            RowDecoder(CARD, [view]).decode([wrong] * 8, None, np.full(8, 5))
        with pytest.raises(CorruptState):
            replace(wrong, CARD, row_layout(view).tag, packed(view, (2, 2, 2), [1.0, "a"]))


def test_two_views_of_one_tag_are_refused() -> None:
    with pytest.raises(DefinitionError, match="tag"):
        RowDecoder(CARD, [a_row_view("v", "float32"), a_row_view("v", "float32")])
