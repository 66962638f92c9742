from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from headway.core.errors import InvalidValue
from headway.features.arrow import cast, conform, keys, locate, times
from headway.features.definitions import Entity
from tests.features.oracle import CARD, SOURCE

NOON = datetime(2018, 8, 8, 12, tzinfo=UTC)
MICROSECONDS = 1_533_729_600_000_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([MICROSECONDS]),
        pa.array([NOON], pa.timestamp("us", tz="UTC")),
        pa.array([NOON], pa.timestamp("ns", tz="Europe/Brussels")),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("s")),
        pa.array([NOON.astimezone(timezone(timedelta(hours=-5)))], pa.timestamp("ms", tz="America/New_York")),
    ],
)
def test_times_of_every_kind_are_utc_microseconds(column: pa.Array) -> None:
    assert times(pa.table({"event_time": column}), "event_time").tolist() == [MICROSECONDS]


def test_what_is_no_time_is_named() -> None:
    for column in (pa.array([None], pa.int64()), pa.array(["noon"]), pa.array([1.5])):
        with pytest.raises(InvalidValue, match="event_time"):
            times(pa.table({"event_time": column}), "event_time")
    with pytest.raises(InvalidValue, match="known_time"):
        times(pa.table({"event_time": [1]}), "known_time")


def test_events_get_their_declared_types_and_a_known_time() -> None:
    rows = pa.table(
        {"payment": pa.array([1], pa.int32()), "card": [7.0], "amount": [2], "event_time": [5], "more": [0]}
    )
    found = conform(SOURCE, rows)
    assert found.to_pylist() == [{"payment": 1, "card": 7, "amount": 2.0, "event_time": 5, "known_time": 5}]
    for column, value in (("card", ["7"]), ("payment", [None])):
        with pytest.raises(InvalidValue, match=column):
            conform(SOURCE, rows.set_column(rows.column_names.index(column), column, pa.array(value)))
    with pytest.raises(InvalidValue, match="amount"):
        conform(SOURCE, rows.drop_columns(["amount"]))


def test_one_time_with_a_zone_beside_one_without_is_refused() -> None:
    bare, zoned = pa.array([NOON.replace(tzinfo=None)]), pa.array([NOON])
    rows = pa.table({"payment": [1], "card": [7], "amount": [2.0], "event_time": zoned, "known_time": bare})
    with pytest.raises(InvalidValue, match="known_time: has no time zone"):
        conform(SOURCE, rows)
    assert conform(SOURCE, rows.set_column(3, "event_time", bare))["event_time"].to_pylist() == [MICROSECONDS]


def test_a_repeated_column_is_refused_and_a_missing_one_told_its_nearest() -> None:
    values = [pa.array([1])] * 5
    with pytest.raises(InvalidValue, match="card: 2 columns"):
        conform(SOURCE, pa.Table.from_arrays(values, names=["payment", "card", "amount", "event_time", "card"]))
    with pytest.raises(InvalidValue, match="did you mean 'crad'"):
        conform(SOURCE, pa.Table.from_arrays(values[:4], names=["payment", "crad", "amount", "event_time"]))


def test_keys_that_would_collide_when_written_down_stay_apart() -> None:
    known = np.array(["1", "11", "a"], object)
    assert locate(known, np.array(["11", "1", None, "b"], object)).tolist() == [1, 0, -1, -1]
    assert locate(np.array([3, 5]), np.array([5, 4, 9, 3])).tolist() == [1, -1, -1, 0]
    assert locate(np.array([], np.int64), np.array([5])).tolist() == [-1]


def test_null_keys_survive() -> None:
    assert keys(pa.table({"k": pa.array([1, None], pa.int64())}), Entity(name="k", key="k")).tolist() == [1, None]
    chunks = pa.chunked_array([pa.array([1]), pa.array([2])])
    assert keys(pa.table({"k": chunks}), Entity(name="k", key="k")).tolist() == [1, 2]
    assert keys(pa.table({"k": pa.chunked_array([], pa.int64())}), Entity(name="k", key="k")).tolist() == []


def test_half_a_number_is_no_key_and_a_float_may_lose_digits() -> None:
    rows = pa.table({"card": [1.0, 2.5]})
    with pytest.raises(InvalidValue, match="card"):
        keys(rows, CARD)
    assert keys(rows.slice(0, 1), CARD).tolist() == [1]
    assert cast(pa.chunked_array([[0.1]]), "float32", "amount").to_pylist() == [pytest.approx(0.1)]
