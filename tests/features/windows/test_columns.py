from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import DefinitionError, InvalidValue
from headway.core.times import parse_duration
from headway.features.aggregates import count, distinct, std
from headway.features.definitions import WindowView
from headway.features.status import Status
from headway.features.windows.columns import WindowColumns, window_columns
from headway.features.windows.events import Events, build_events, event_ids, make_records, scaled
from headway.features.windows.scan import SKETCH, VALUES
from headway.features.windows.tiles import mixed, tile_layout, tiled
from tests.features.oracle import CARD, SOURCE, Event, a_view, arrays, endless_view, feature, retained

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
    view: WindowView,
    history: list[Event],
    keys: list[int],
    at: list[int],
    *,
    cutoff: bool = True,
    more_than: int | None = None,
) -> WindowColumns:
    events = to_events(history)
    events = dataclasses.replace(events, records=np.ascontiguousarray(events.records[:, : VALUES + len(view.columns)]))
    if more_than is not None:
        events = dataclasses.replace(events, tiles=tiled(tile_layout(view), events, more_than=more_than))
    position = {int(key): i for i, key in enumerate(events.keys)}
    row_key = np.array([position.get(key, -1) for key in keys], np.int64)
    return window_columns(view, events, row_key, np.array(at, np.int64), cutoff=cutoff)


def agrees(
    view: WindowView,
    history: list[Event],
    rows: list[tuple[int, int]],
    *,
    cutoff: bool,
    more_than: int | None = None,
) -> None:
    keys, at = [key for key, _ in rows], [t for _, t in rows]
    found = evaluate(view, history, keys, at, cutoff=cutoff, more_than=more_than)
    for name, aggregate in zip(view.features, view.aggregates, strict=True):
        expected = np.array([feature(view, aggregate, history, k, t, cutoff) for k, t in rows], np.float32)
        np.testing.assert_array_equal(found.columns[name].view(np.int32), expected.view(np.int32), err_msg=name)
    for status, (key, t) in zip(found.status, rows, strict=True):
        assert (status == Status.MISSING) == (not retained(view, history, key, t, cutoff))


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(-5, 200)), max_size=12)


@given(histories(), ROWS, st.booleans(), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_agrees_with_the_oracle_to_the_bit(
    history: list[Event], rows: list[tuple[int, int]], cutoff: bool, cap: int
) -> None:
    agrees(a_view(max_events=1_000), history, rows, cutoff=cutoff)
    agrees(a_view(max_events=cap), history, rows, cutoff=cutoff)
    agrees(a_view(max_events=1_000, retention=25), history, rows, cutoff=cutoff)
    agrees(endless_view(max_events=cap), history, rows, cutoff=cutoff)


@given(histories(), ROWS, st.booleans(), st.sampled_from(["1us", "3us", "7us", "10us"]), st.sampled_from([0, 1, 5, 64]))
@settings(max_examples=200, deadline=None)
def test_hop_tiles_agree_with_the_oracle_to_the_bit(
    history: list[Event], rows: list[tuple[int, int]], cutoff: bool, hop: str, more_than: int
) -> None:
    view = a_view(max_events=None, hop=hop)
    agrees(view, history, rows, cutoff=cutoff, more_than=more_than)
    agrees(a_view(max_events=None, hop=hop, retention=25), history, rows, cutoff=cutoff, more_than=more_than)
    agrees(dataclasses.replace(endless_view(1), max_events=None, hop=hop), history, rows, cutoff=cutoff)


@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=1, max_size=200), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_the_spread_of_large_numbers_is_exact(values: list[int], hop: int) -> None:
    history = [Event(0, i % 60, i % 60, i, value) for i, value in enumerate(values)]
    view = WindowView(
        name="spread",
        entity=CARD,
        source=SOURCE,
        aggregates=std("amount", "1ms", scale=100),
        hop=f"{hop}us",
    )
    agrees(view, history, [(0, 60)], cutoff=True, more_than=0)
    agrees(dataclasses.replace(view, hop=None, max_events=1_000), history, [(0, 60)], cutoff=True)


@pytest.mark.parametrize("different", [5, 127, 128, 1_000, 50_000])
def test_many_different_values_are_counted_within_the_declared_tolerance(different: int) -> None:
    view = WindowView(name="d", entity=CARD, source=SOURCE, aggregates=distinct("amount", "1s"), hop="100ms")
    random = np.random.default_rng(different)
    n = 3 * different
    at = np.sort(random.integers(1, 900_000, n))
    values = mixed(np.append(np.arange(different), random.integers(0, different, n - different)))
    events = build_events(np.zeros(n, np.int64), make_records(at, at, np.arange(n), [random.permutation(values)]))
    layout = tile_layout(view)
    whole = window_columns(view, events, np.zeros(1, np.int64), np.array([950_000]))
    single = dataclasses.replace(events, tiles=tiled(layout, events, more_than=n))
    assert whole.columns == window_columns(view, single, np.zeros(1, np.int64), np.array([950_000])).columns
    found = float(whole.columns["d__amount_distinct_1s"][0])
    tolerance = 0 if different < SKETCH else 3 / np.sqrt(SKETCH - 2)
    assert abs(found - different) <= tolerance * different


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


def test_a_view_declares_one_kind_of_window() -> None:
    with pytest.raises(DefinitionError, match=r"activity\.hop"):
        a_view(max_events=5, hop="1us")
    with pytest.raises(DefinitionError, match="at most 10us"):
        a_view(max_events=None, hop="11us")
    with pytest.raises(DefinitionError, match=r"activity\.max_events"):
        a_view(max_events=0)
    assert a_view().step == 0


@pytest.mark.parametrize(("window", "hop"), [("7d", "6h"), ("1d", "1h"), ("90d", "1d"), ("60s", "1s"), ("10us", "1us")])
def test_a_hop_that_is_not_declared_is_a_twentieth_of_the_shortest_window(window: str, hop: str) -> None:
    view = dataclasses.replace(a_view(None), aggregates=count(window, "365d"))
    assert view.step == parse_duration(hop)
