"""Hop tiles in stored values: whatever arrives when, reads are those of the oracle, or say that they cannot be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.core.errors import InvalidValue
from headway.features.arrow import events_of
from headway.features.definitions import FeatureService, WindowView
from headway.features.online_store import OnlineStore
from headway.features.status import Status
from headway.features.windows import codec, merging
from headway.features.windows.columns import window_columns
from headway.features.windows.events import Events
from headway.features.windows.scan import KNOWN, NEVER
from tests.features.oracle import Event, a_view, endless_view, feature
from tests.features.samples import read, table
from tests.features.windows.test_retraction import SOURCE as RETRACTING
from tests.features.windows.test_retraction import rows_of
from tests.features.windows.test_retraction import table as table_of

SLACK = 20


@st.composite
def dense(draw: st.DrawFn) -> list[Event]:
    """Many events of two keys in few tiles, mostly known in order; ids are unique."""
    times = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 120)), min_size=10, max_size=120))
    late = st.one_of(st.just(0), st.just(1), st.integers(0, 50))
    value = st.one_of(st.none(), st.integers(-999, 999))
    return [Event(key, at, at + draw(late), i, draw(value)) for i, (key, at) in enumerate(times)]


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sum up events after microseconds, and few of them, so that short histories have tiles."""
    monkeypatch.setattr(merging, "SLACK", SLACK)
    monkeypatch.setattr(merging, "FEW", 1)
    monkeypatch.setattr(merging, "_SINGLE", 6)


class Store:
    """Values by key, written as the online store does, with the events so far as its lake."""

    def __init__(self, view: WindowView) -> None:
        self.view = view
        self.values: dict[int, bytes] = {}
        self.rebuilt = 0

    def write(self, new: Events, lake: Events) -> None:
        stored = [self.values.get(key) for key in new.keys.tolist()]
        merged = merging.merge(self.view, new, stored)
        for i, key in enumerate(new.keys.tolist()):
            if merged.late[i]:
                j = lake.keys.tolist().index(key)
                own = slice(lake.offsets[j], lake.offsets[j + 1])
                whole = Events(
                    keys=lake.keys[j : j + 1],
                    offsets=lake.offsets[j : j + 2] - lake.offsets[j],
                    records=lake.records[own],
                    truncated_before=np.array([NEVER]),
                )
                again = merging.merge(self.view, whole, [stored[i]], anew=True)
                assert not again.late.any()
                self.values[key] = again.values[0]
                self.rebuilt += 1
            else:
                self.values[key] = merged.values[i]

    def agrees(self, history: list[Event], newest: int) -> int:
        """Compare with the oracle; return how many rows could not be told."""
        rows = [(key, t) for key in range(4) for t in range(0, 200, 9)] + [(key, newest) for key in range(4)]
        keys = sorted(self.values)
        events, _ = codec.unpack(self.view, [self.values[key] for key in keys])
        places = np.array([keys.index(key) if key in keys else -1 for key, _ in rows], np.int64)
        found = window_columns(self.view, events, places, np.array([t for _, t in rows], np.int64))
        untold = found.status == Status.TRUNCATED
        for name, a in zip(self.view.features, self.view.aggregates, strict=True):
            for i, (key, t) in enumerate(rows):
                expected = feature(self.view, a, history, key, t, True)
                assert untold[i] or found.columns[name][i].tobytes() == np.float32(expected).tobytes(), (name, key, t)
        assert not untold[-4:].any(), "a read of now can always be told"
        return int(untold.sum())


@given(dense(), st.integers(1, 8), st.randoms(use_true_random=False), st.sampled_from([7, 10]), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_events_late_repeated_and_in_any_order(
    history: list[Event], writes: int, random: object, hop: int, endless: bool
) -> None:
    view = dataclasses.replace(endless_view(1), max_events=None) if endless else a_view(max_events=None)
    view = dataclasses.replace(view, hop=f"{hop}us")
    arriving = sorted([*history, *history[::3]], key=lambda e: e.known_time)
    if writes > 6:
        random.shuffle(arriving)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    store = Store(view)
    seen: list[Event] = []
    for part in np.array_split(np.arange(len(arriving)), writes):
        new = [arriving[i] for i in part]
        seen += new
        if new:
            store.write(events_of(view, table(new)), events_of(view, table(seen)))
    store.agrees(history, max([e.known_time for e in history] + [e.event_time for e in history], default=0))


@given(
    dense(),
    st.sets(st.integers(0, 119), max_size=20),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
    st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_events_taken_back(history: list[Event], back: set[int], writes: int, random: object, in_order: bool) -> None:
    history = [
        dataclasses.replace(e, taken_back=e.known_time + e.id % 60 - 10 if e.id in back else None) for e in history
    ]
    view = dataclasses.replace(a_view(max_events=None, hop="7us"), source=RETRACTING)
    rows = sorted(rows_of(history), key=lambda row: (row["known_time"], row["cancelled"]))
    if not in_order:
        random.shuffle(rows)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    store = Store(view)
    for part in np.array_split(np.arange(len(rows)), writes):
        if len(part):
            store.write(
                events_of(view, table_of([rows[i] for i in part])),
                events_of(view, table_of(rows[: part[-1] + 1])),
            )
    scaled = [dataclasses.replace(e, value=None if e.value is None else e.value * 100) for e in history]
    moments = [t for e in history for t in (e.event_time, e.known_time, e.taken_back or 0)]
    store.agrees(scaled, max(moments, default=0))


def test_a_busy_key_is_bounded_by_its_hops_and_not_by_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    view = a_view(max_events=None, hop="10us")
    store = Store(view)
    sizes = []
    for chunk in range(20):
        new = events_of(view, table([Event(0, t, t, t, 7) for t in range(chunk * 50, chunk * 50 + 50)]))
        store.write(new, new)
        sizes.append(len(store.values[0]))
    assert store.rebuilt == 0
    assert max(sizes[3:]) <= sizes[3] + 200
    events, _ = codec.unpack(view, [store.values[0]])
    assert events.tiles is not None
    assert len(events) <= 6
    assert int(events.records[:, KNOWN].max()) == 999


def test_the_window_of_a_tiled_key_moves_on_between_events() -> None:
    view = a_view(max_events=None, hop="10us")
    store = Store(view)
    history = [Event(0, t, t, t, t) for t in range(0, 200, 3)]
    store.write(events_of(view, table(history)), events_of(view, table(history)))
    assert store.agrees(history, 198) < len(range(0, 200, 9)) * 4
    for later in (199, 204, 216, 239, 240, 300):
        store.agrees(history, later)


def test_late_events_take_their_key_from_the_lake(online_url: str) -> None:
    view = a_view(max_events=None, hop="10us")
    history = [Event(key, t, t, t, 5) for t in range(100) for key in (1, 2)]
    late = [Event(1, 75, 101, 500, 900), *history[140:144]]  # one that is new, and some that were there
    asked: list[list[int]] = []

    def lake(_: WindowView, keys: np.ndarray[tuple[int], np.dtype[np.generic]]) -> pa.Table:
        asked.append(keys.tolist())
        return table([e for e in [*history, *late] if e.key in keys])

    store = OnlineStore(online_url, history=lake)
    store.write(view, table(history))
    assert store.write(view, table([*late, Event(3, 101, 101, 501, 1)])).rebuilt == 2
    assert asked == [[1, 2]]
    store.close()
    service = FeatureService(name="s", views=(view,), request={})
    at = [(key, t) for key in (1, 2, 3) for t in (101, 110)]
    found = read(service, online_url, [key for key, _ in at], [t for _, t in at])
    everything = [*history, late[0], Event(3, 101, 101, 501, 1)]
    for name, a in zip(view.features, view.aggregates, strict=True):
        expected = np.array([feature(view, a, everything, key, t, True) for key, t in at], np.float32)
        assert found.columns[name].tobytes() == expected.tobytes(), name


def test_without_a_lake_late_events_are_refused(online_url: str) -> None:
    view = a_view(max_events=None, hop="10us")
    store = OnlineStore(online_url)
    store.write(view, table([Event(1, t, t, t, 5) for t in range(100)]))
    with pytest.raises(InvalidValue, match="materialize"):
        store.write(view, table([Event(1, 75, 101, 500, 900)]))
    store.close()


def test_another_writer_between_is_not_overwritten(online_url: str) -> None:
    view = a_view(max_events=None, hop="10us")
    history = [Event(1, t, t, t, 5) for t in range(100)]
    late, other = Event(1, 75, 101, 500, 900), Event(1, 102, 102, 501, 7)
    known = [*history, late]

    def lake(_: WindowView, __: object) -> pa.Table:
        found = table(known)
        if other not in known:  # while this writer reads, another one writes
            known.append(other)
            OnlineStore(online_url).write(view, table([other]))
        return found

    store = OnlineStore(online_url, history=lake)
    store.write(view, table(history))
    report = store.write(view, table([late]))
    assert (report.rebuilt, report.retries) == (1, 1)
    found = read(FeatureService(name="s", views=(view,), request={}), online_url, [1], [102])
    assert found.columns["activity__count_10us"].tolist() == [10.0]
    store.close()
