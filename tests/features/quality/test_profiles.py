from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.control import MemoryControlStore
from headway.core.times import DAY, SECOND
from headway.features.arrow import conform
from headway.features.quality.profiles import DELAY, KEPT, TEXTS, Profiles, count, layout
from tests.features.quality.holding import SOURCE, sales
from tests.features.quality.test_check import ROW, table
from tests.features.quality.test_check import SOURCE as WIDE


def split(rows: pa.Table) -> dict[str, Any]:
    return layout(SOURCE).split(count(SOURCE, conform(SOURCE, rows)))


@settings(deadline=None)
@given(st.lists(ROW, max_size=10), st.lists(ROW, max_size=10))
def test_counts_are_of_every_row_and_add_up(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    first, second, both = (count(WIDE, conform(WIDE, table(part))) for part in (rows, others, rows + others))
    assert np.array_equal(first + second, both)
    for name, counts in layout(WIDE).split(first).items():
        assert counts.sum() == len(rows)
        if name != DELAY:
            missing = [row[name] is None or row[name] != row[name] for row in rows]
            assert counts[-1] == sum(missing)


@settings(deadline=None)
@given(
    st.lists(
        st.floats(2.0**-9, 2.0**39, width=32) | st.floats(-(2.0**39), -(2.0**-9), width=32), min_size=1, max_size=20
    )
)
def test_a_bin_holds_numbers_of_one_size(prices: list[float]) -> None:
    bins = {column.name: column for column in layout(SOURCE).columns}["price"]
    edges = [-math.inf, *bins.edges, math.inf]
    counts = split(sales(*prices))["price"]
    for index in np.flatnonzero(counts[:-1]).tolist():
        inside = [price for price in prices if edges[index] < price <= edges[index + 1]]
        assert counts[index] == len(inside)
        low, high = sorted((abs(edges[index]), abs(edges[index + 1])))
        assert high / low < 1.2


def test_zero_small_categories_and_delays_have_bins_of_their_own() -> None:
    prices = {value: np.flatnonzero(split(sales(value))["price"]).item() for value in (-1e-9, 0.0, 1e-9, 1.0, 2.0, 3.0)}
    assert len(set(prices.values())) == 6
    assert list(prices.values()) == sorted(prices.values())
    channel = split(sales(1.0, 1.0, 1.0))["channel"]
    assert len(channel) == TEXTS + 1
    assert sorted(channel[channel > 0].tolist()) == [1, 2]
    assert split(sales(1.0))[DELAY].sum() == 1
    assert [column.name for column in layout(SOURCE).columns] == ["price", "channel", DELAY], "no keys"


def at_day(day: int, *prices: float) -> pa.Table:
    rows = sales(*prices)
    for name in ("event_time", "known_time"):
        moved = pa.array([day * DAY + SECOND] * len(prices), pa.int64())
        rows = rows.set_column(rows.column_names.index(name), name, moved)
    return rows


def test_days_are_kept_apart_and_a_repeated_batch_counts_once() -> None:
    profiles = Profiles(MemoryControlStore())
    both = pa.concat_tables([at_day(100, 1.0, 2.0), at_day(101, 3.0)])
    profiles.add(SOURCE, both, "a")
    profiles.add(SOURCE, at_day(101, 4.0, 5.0), "b")
    profiles.add(SOURCE, both, "a")
    profiles.add(SOURCE, at_day(101), "c")
    days = profiles.days(SOURCE)
    assert [(day.day, day.rows) for day in days] == [(100, 2), (101, 3)]
    assert np.array_equal(days[1].counts, count(SOURCE, at_day(101, 3.0, 4.0, 5.0)))


def test_only_the_newest_days_are_kept() -> None:
    profiles = Profiles(MemoryControlStore())
    long = pa.concat_tables([at_day(day, 1.0) for day in range(3 * KEPT)])
    profiles.add(SOURCE, long, "a")
    assert [day.day for day in profiles.days(SOURCE)] == list(range(2 * KEPT, 3 * KEPT))
    profiles.add(SOURCE, at_day(3, 1.0), "late")
    assert [day.day for day in profiles.days(SOURCE)] == list(range(2 * KEPT, 3 * KEPT)), "too old to matter"
    profiles.add(SOURCE, at_day(3 * KEPT, 1.0), "b")
    assert [day.day for day in profiles.days(SOURCE)][-1] == 3 * KEPT


def test_days_of_other_columns_are_not_mixed_in() -> None:
    profiles, wider = Profiles(MemoryControlStore()), {**SOURCE.columns, "more": "int64"}
    profiles.add(SOURCE, at_day(100, 1.0), "a")
    changed = type(SOURCE)(name="sales", columns=wider, id="id", bucket_by="shop")
    assert profiles.days(changed) == []
    rows = at_day(100, 1.0).append_column("more", pa.array([7], pa.int64()))
    profiles.add(changed, rows, "b")
    assert [day.rows for day in profiles.days(changed)] == [1]


@pytest.mark.parametrize("rows", [0, 1])
def test_text_that_never_comes_is_missing(rows: int) -> None:
    empty = sales(*[1.0] * rows)
    position = empty.column_names.index("channel")
    nothing = empty.set_column(position, "channel", pa.nulls(rows, pa.string()))
    assert split(nothing)["channel"].tolist() == [0] * TEXTS + [rows]
