from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.canonical import canonical
from headway.core.errors import DefinitionError, InvalidValue
from headway.features.arrow import keys
from headway.features.definitions import Entity, EventSource, RowView, WindowView
from headway.features.entities import key_parts, key_text

PLACE = Entity(name="place", key=("card", "shop"), dtype=("int64", "string"))
parts = st.lists(st.text(st.sampled_from("1:\\é")), min_size=2, max_size=3)


@given(parts, parts)
def test_two_keys_never_have_one_text(one: list[str], other: list[str]) -> None:
    if len(one) == len(other):
        assert (key_text(one) == key_text(other)) == (one == other)


@given(st.lists(st.tuples(st.one_of(st.none(), st.integers(-12, 12)), st.one_of(st.none(), st.text("1:\\é")))))
def test_whole_columns_have_the_same_texts(rows: list[tuple[int | None, str | None]]) -> None:
    table = pa.table(
        {"card": pa.array([card for card, _ in rows], pa.int64()), "shop": pa.array([s for _, s in rows], pa.string())}
    )
    expected = [None if card is None or shop is None else key_text((card, shop)) for card, shop in rows]
    assert keys(table, PLACE).tolist() == expected


def test_a_key_column_that_is_missing_or_of_another_type_is_named() -> None:
    with pytest.raises(InvalidValue, match="shop"):
        keys(pa.table({"card": [1]}), PLACE)
    with pytest.raises(InvalidValue, match="card"):
        keys(pa.table({"card": ["a"], "shop": ["b"]}), PLACE)


def test_one_column_is_the_same_key_however_it_is_written() -> None:
    assert Entity(name="card", key=("card",), dtype=("int64",)) == Entity(name="card", key="card")
    assert Entity(name="pair", key=("a", "b")) == Entity(name="pair", key=("a", "b"), dtype=("int64", "int64"))
    assert (PLACE.keys, PLACE.dtypes) == (("card", "shop"), ("int64", "string"))
    for entity in (PLACE, Entity(name="card", key="card")):
        assert Entity.of(json.loads(canonical(entity.describe()))) == entity


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"key": ()}, "e.key"),
        ({"key": ""}, "e.key"),
        ({"key": ("a", "b", "a")}, "e.key"),
        ({"key": ("a", "b"), "dtype": ("int64",)}, "e.dtype"),
        ({"key": "a", "dtype": ("int64", "string")}, "e.dtype"),
        ({"key": "a", "dtype": "float64"}, "e.dtype"),
    ],
)
def test_what_is_no_key_is_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(DefinitionError, match=field):
        Entity(name="e", **given)


@pytest.mark.parametrize("columns", [{"card": "int64"}, {"card": "int64", "shop": "int64"}])
def test_a_view_needs_a_source_with_its_key(columns: dict[str, str]) -> None:
    source = EventSource(name="s", columns={"id": "int64", **columns}, id="id", bucket_by="card")
    for kind, more in ((RowView, {"columns": ("id",)}), (WindowView, {"aggregates": (), "max_events": 1})):
        with pytest.raises(DefinitionError, match=r"v\.entity.*'shop'"):
            kind(name="v", entity=PLACE, source=source, **more)


def test_keys_of_several_columns_are_objects() -> None:
    table = pa.table({"card": [1, 1], "shop": ["1", "11"]})
    assert keys(table, PLACE).dtype == np.dtype(object)


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(":\\a\n1", max_size=4)), min_size=2, max_size=4))
def test_parts_of_a_composite_key_come_back_from_its_text(parts: list[int | str]) -> None:
    dtypes = ["string" if isinstance(part, str) else "int64" for part in parts]
    assert key_parts(key_text(parts), dtypes) == tuple(parts)
