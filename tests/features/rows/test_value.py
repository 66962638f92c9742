from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import CorruptState, InvalidValue
from headway.features.definitions import RowView
from headway.features.rows.batch import RowDecoder
from headway.features.rows.codec import Rank, Row, row_layout
from headway.features.rows.scan import MAGIC
from headway.features.rows.value import RESIDUE, replace, unpack
from tests.features.rows.row_views import CARD, VALUES, a_row_view, packed, put, ranks, worlds

World = tuple[list[RowView], list[list[tuple[Rank, list[Any]] | None]]]


@given(worlds(), st.data())
@settings(max_examples=150, deadline=None)
def test_rows_written_in_any_order_leave_the_newest_and_the_same_bytes(world: World, data: st.DataObject) -> None:
    views, _ = world
    rows = [
        (view, packed(view, rank, data.draw(st.tuples(*(VALUES[d] for d in view.dtypes)).map(list))))
        for view in views
        for rank in data.draw(st.lists(ranks, max_size=4, unique=True))
    ]
    found = []
    for order in (rows, data.draw(st.permutations(rows)), [*rows, *data.draw(st.permutations(rows))]):
        value: bytes | None = None
        for view, row in order:
            value = replace(value, CARD, row_layout(view).tag, row)[0] or value
        found.append(value)
    assert found[0] == found[1] == found[2]
    newest: dict[int, Row] = {}
    for view, row in rows:
        newest[row_layout(view).tag] = max(newest.get(row_layout(view).tag, row), row, key=lambda each: each.rank)
    assert (unpack(found[0], CARD) if found[0] else {}) == newest


def stored(world: World) -> bytes | None:
    """Return the longest value of a world."""
    values: list[bytes] = []
    for key in world[1]:
        value = None
        for view, row in zip(world[0], key, strict=True):
            value = value if row is None else put(value, view, *row)
        values += [value] if value else []
    return max(values, key=len, default=None)


def refused(views: list[RowView], value: bytes) -> list[bool]:
    """Return whether writer, single read and batch read refuse a value; any other error is an error of the test."""
    decoder = RowDecoder(CARD, views)
    row = packed(a_row_view("other"), (1, 1, 1), [])
    answers = []
    for act in (
        lambda: replace(value, CARD, 1, row),
        lambda: decoder.decode([value], None, np.array([5])).columns(),
        lambda: decoder.decode([None, value, value], None, np.full(3, 5)).columns(),
    ):
        try:
            act()
        except CorruptState:
            answers.append(True)
        else:
            answers.append(False)
    return answers


@given(worlds(), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_bytes_are_corrupt_state(world: World, data: st.DataObject) -> None:
    value = stored(world)
    if value is None:
        return
    assert refused(world[0], value) == [False] * 3
    place = data.draw(st.integers(0, len(value) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    flipped = value[:place] + bytes([value[place] ^ bit]) + value[place + 1 :]
    for wrong in (flipped, value[:place], value[place + 1 :], value + b"\0", value + value):
        assert refused(world[0], wrong) == [True] * 3


@given(worlds(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_right_checksum_over_wrong_bytes_is_refused_or_read_but_never_fails(
    world: World, data: st.DataObject
) -> None:
    value = stored(world)
    if value is None:
        return
    head = value[:-4]
    place = data.draw(st.integers(0, min(len(head) - 1, 40)))
    wrong = data.draw(
        st.sampled_from([head[:place], head[:place] + head[place + 1 :], head + b"\0", head[:1] + head])
        | st.binary(min_size=1, max_size=6).map(lambda new: head[:place] + new + head[place + len(new) :])
        | st.binary(max_size=60).map(lambda new: bytes([MAGIC]) + new)
    )
    writer, one, many = refused(world[0], wrong + struct.pack("<I", zlib.crc32(wrong)))
    assert one == many
    assert one or not writer


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
    body = bytes([MAGIC]) + b"\0" * 9
    sealed = [
        text + struct.pack("<I", zlib.crc32(text))
        for text in (body, b"x" + good[1:-4], good[:-6], bytes([MAGIC]) + good)
    ]
    for wrong in (b"", b"x", good[:-1], good[:-1] + b"\0", *sealed):
        with pytest.raises(CorruptState, match="materialize"):
            RowDecoder(CARD, [view]).decode([wrong], None, np.array([5]))
        with pytest.raises(CorruptState):
            RowDecoder(CARD, [view]).decode([wrong] * 8, None, np.full(8, 5))
        with pytest.raises(CorruptState):
            replace(wrong, CARD, row_layout(view).tag, packed(view, (2, 2, 2), [1.0, "a"]))


def test_a_time_of_another_age_is_refused_by_name() -> None:
    with pytest.raises(InvalidValue, match="event_time"):
        put(None, a_row_view("v", "float32"), (2**56, 2**56, 1), [1.0])
