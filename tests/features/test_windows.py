from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import InvalidValue
from headway.features.definitions import WindowView
from headway.features.events import make_records
from headway.features.windows import (
    Events,
    Status,
    WindowColumns,
    build_events,
    event_ids,
    scaled,
    window_columns,
)
from tests.features.oracle import Event, a_view, arrays, endless_view, feature, retained

Array = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Few keys, close times, late and out-of-order arrivals, repeated ids, missing values."""
    late = st.one_of(st.just(1), st.integers(-3, 60))
    return [
        Event(key, at, at + draw(late), draw(st.integers(0, 40)), draw(st.one_of(st.none(), st.integers(-999, 999))))
        for key, at in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 120)), max_size=40))
    ]


def to_events(history: list[Event]) -> Events:
    a = arrays(history)
    return build_events(a["card"], make_records(a["event_time"], a["known_time"], a["payment"], [a["amount"]] * 2))


def evaluate(
    view: WindowView, history: list[Event], keys: list[int], at: list[int], *, cutoff: bool = True
) -> WindowColumns:
    events = to_events(history)
    position = {int(key): i for i, key in enumerate(events.keys)}
    row_key = np.array([position.get(key, -1) for key in keys], np.int64)
    return window_columns(view, events, row_key, np.array(at, np.int64), cutoff=cutoff)


def agrees(view: WindowView, history: list[Event], rows: list[tuple[int, int]], *, cutoff: bool) -> None:
    keys, at = [key for key, _ in rows], [t for _, t in rows]
    found = evaluate(view, history, keys, at, cutoff=cutoff)
    for name, aggregate in zip(view.features, view.aggregates, strict=True):
        expected = np.array([feature(view, aggregate, history, k, t, cutoff) for k, t in rows], np.float32)
        np.testing.assert_array_equal(found.columns[name].view(np.int32), expected.view(np.int32), err_msg=name)
    for status, (key, t) in zip(found.status, rows, strict=True):
        assert (status == Status.MISSING) == (not retained(view, history, key, t, cutoff))


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(-5, 200)), max_size=12)


@given(histories(), ROWS, st.booleans(), st.integers(1, 8))
@settings(max_examples=400, deadline=None)
def test_agrees_with_the_oracle_to_the_bit(
    history: list[Event], rows: list[tuple[int, int]], cutoff: bool, cap: int
) -> None:
    agrees(a_view(max_events=1_000), history, rows, cutoff=cutoff)
    agrees(a_view(max_events=cap), history, rows, cutoff=cutoff)
    agrees(a_view(max_events=1_000, retention=25), history, rows, cutoff=cutoff)
    agrees(endless_view(max_events=cap), history, rows, cutoff=cutoff)


@given(histories(), ROWS, st.integers(2**50, 2**61))
@settings(max_examples=100, deadline=None)
def test_times_too_far_apart_for_one_number_are_ranked(
    history: list[Event], rows: list[tuple[int, int]], far: int
) -> None:
    agrees(a_view(), [*history, Event(0, -far, -far, 1_000, 1), Event(9, far, far, 1_001, 5)], rows, cutoff=True)


@given(histories(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_arrival_order_and_redelivery_change_nothing(history: list[Event], random: object) -> None:
    shuffled = [*history, *history]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    first, second = to_events(history), to_events(shuffled)
    for name in ("keys", "offsets", "records"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_window_edges_are_open_below_and_closed_above() -> None:
    history = [Event(1, 10, 10, 1, 100), Event(1, 20, 20, 2, 300)]
    found = evaluate(a_view(), history, [1, 1, 1], [20, 19, 30])
    assert found.columns["activity__count_10us"].tolist() == [1.0, 1.0, 0.0]
    assert found.columns["activity__amount_mean_10us"].tolist()[:2] == [3.0, 1.0]
    assert found.status.tolist() == [Status.PRESENT] * 3


def test_old_events_are_expired_and_unknown_keys_missing() -> None:
    found = evaluate(a_view(), [Event(1, 10, 10, 1, 100)], [1, 2, 1], [500, 500, 5])
    assert found.status.tolist() == [Status.EXPIRED, Status.MISSING, Status.MISSING]
    assert found.columns["activity__count_40us"].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(found.columns["activity__amount_mean_40us"]).all()


def test_a_window_beyond_the_cap_says_truncated() -> None:
    history = [Event(1, 10 + i, 10 + i, i, 100) for i in range(5)]
    found = evaluate(a_view(max_events=3), history, [1], [14])
    assert found.status.tolist() == [Status.TRUNCATED]
    assert found.columns["activity__count_40us"].tolist() == [3.0]


def test_empty_history() -> None:
    found = evaluate(a_view(), [], [1, 2], [5, 6])
    assert found.status.tolist() == [Status.MISSING] * 2
    assert found.columns["activity__count_10us"].dtype == np.float32


def test_rows_without_a_key_belong_to_nobody() -> None:
    keys = np.array(["a", None, "a"], object)
    time = np.array([1, 2, 3], np.int64)
    events = build_events(keys, make_records(time, time, time, []))
    assert events.keys.tolist() == ["a"]
    assert events.event_time.tolist() == [1, 3]


def test_values_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(InvalidValue, match="amount"):
        scaled(np.array([1e300]), 100, field="amount")
    assert scaled(np.array([1.25, np.nan]), 100, field="amount").tolist() == [125, -(2**63)]


def test_string_ids_do_not_depend_on_the_process() -> None:
    assert event_ids(np.array(["a", "b"], object)).tolist() == event_ids(np.array(["a", "b"])).tolist()
    assert event_ids(np.array(["a"], object)).tolist() == [3405396810240292928]


def test_a_key_that_forgot_everything_is_not_missing() -> None:
    events = Events(
        keys=np.array([7]),
        offsets=np.zeros(2, np.int64),
        records=np.empty((0, 5), np.int64),
        truncated_before=np.array([100]),
    )
    rows, at = np.array([0, 0, -1]), np.array([120, 500, 500])
    assert window_columns(a_view(), events, rows, at).status.tolist() == [
        Status.TRUNCATED,
        Status.EXPIRED,
        Status.MISSING,
    ]
