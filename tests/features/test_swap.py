"""Values that are remembered, values that are sent as what they grew by, and keys that the server deletes."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock, SystemClock
from headway.core.times import DAY, HOUR
from headway.features.aggregates import count
from headway.features.arrow import events_of
from headway.features.definitions import WindowView
from headway.features.online_store import OnlineStore
from headway.features.status import KEPT, SLACK
from headway.features.windows.codec import prefix, unpack
from tests.features.oracle import CARD, SOURCE, Event, a_view, endless_view
from tests.features.samples import table

VIEW = a_view(max_events=100_000, retention=10_000)
KEYS = 3


def writes(chance: random.Random) -> list[tuple[int, list[Event]]]:
    """Which of three writers writes which events; most come in order and values grow long."""
    done = []
    for number in range(chance.randint(1, 8)):
        first, many = 1_000 * number, chance.choice([3, 40, 300])
        events = [
            Event(chance.randrange(KEYS), first + i - chance.choice([0, 0, 0, 900]), first + i, first + i, i)
            for i in range(many)
        ]
        done.append((chance.randrange(3), events))
    return done


@settings(max_examples=60, deadline=None)
@example(63, 273)
@given(st.integers(0, 2**32), st.integers(0, 40_000))
def test_whoever_writes_and_remembers_what_the_value_is_that_of_all_events(
    redis_url: str, seed: int, remembered: int
) -> None:
    stores = [OnlineStore(redis_url), *(OnlineStore(redis_url, remembered=size) for size in (remembered, 1 << 20))]
    stores[0].clear(VIEW)
    done = writes(random.Random(seed))
    for writer, events in done:
        stores[writer].write(VIEW, table(events))
    expected = events_of(VIEW, table([event for _, events in done for event in events]))
    client = stores[0]._client
    found, _ = unpack(VIEW, client.mget([prefix(VIEW) + str(key).encode() for key in expected.keys.tolist()]))
    assert np.array_equal(found.offsets, expected.offsets)
    assert np.array_equal(found.records, expected.records)
    assert stores[1]._swap._size <= remembered
    for store in stores:
        store.close()


def test_a_store_that_lost_its_values_is_noticed(online_url: str) -> None:
    store = OnlineStore(online_url, remembered=1 << 20)
    store.write(VIEW, table([Event(1, i, i, i, i) for i in range(300)]))
    store._client.flushall()
    store.write(VIEW, table([Event(1, 400, 400, 400, 4)]))
    found, _ = unpack(VIEW, [store._client.get(prefix(VIEW) + b"1")])
    assert found.event_time.tolist() == [400]


@pytest.mark.parametrize("kind", [{"hop": "1h"}, {"max_events": 500}])
def test_a_key_goes_when_no_window_reaches_it_counted_from_its_last_write(
    online_url: str, clock: ManualClock, kind: dict[str, Any]
) -> None:
    """Also where the events are of 2018: their reads lie in the past as well."""
    view = WindowView(name="v", entity=CARD, source=SOURCE, aggregates=count("1d"), **kind)
    store, now = OnlineStore(online_url, clock=clock), clock.now()
    assert view.horizon is not None
    reach = view.horizon + SLACK + KEPT
    old = [Event(1, now - 900 * DAY + i, now - 900 * DAY + i, i, i) for i in range(200)]
    ahead = [Event(3, now + HOUR, now + HOUR, 3, 3)]
    store.write(view, table([*old, Event(2, now, now, 2, 2), *ahead]))
    for key, more in ((1, 0), (2, 0), (3, HOUR)):
        ttl = store._client.pttl(prefix(view) + str(key).encode())
        assert reach + more - 60_000_000 < 1_000 * ttl <= reach + more
    store._client.pexpire(prefix(view) + b"1", 50_000)
    store.write(view, table([Event(1, now, now, 900, 9)]))
    assert store._client.pttl(prefix(view) + b"1") > 60_000


def test_a_view_that_reaches_back_for_ever_keeps_its_keys(online_url: str) -> None:
    store, view = OnlineStore(online_url), endless_view(10)
    store.write(view, table([Event(1, 1, 1, 1, 1)]))
    assert store._client.pttl(prefix(view) + b"1") == -1


def test_an_event_that_comes_as_its_key_expires_is_not_lost(online_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers with pauses around the key's time to live, which is the view's reach here."""
    monkeypatch.setattr("headway.features.online_store.SLACK", 0)
    monkeypatch.setattr("headway.features.online_store.KEPT", 0)
    view = a_view(max_events=100_000, retention=60_000)
    clock, failures, fresh = SystemClock(), [], []
    reach = view.horizon or 0
    name = prefix(view) + b"1"

    def write(writer: int) -> None:
        chance = random.Random(writer)
        store = OnlineStore(online_url, remembered=1 << 20)
        for number in range(40):
            now, own = clock.now(), 1_000 * writer + number
            store.write(view, table([Event(1, now, now, own, 1)]))
            stored = store._client.get(name)
            ids = [] if stored is None else unpack(view, [stored])[0].records[:, 2].tolist()
            if own not in ids and clock.now() - now < reach:
                failures.append(own)
            fresh.append(len(ids) == 1)
            time.sleep(chance.choice([0.0, 0.95, 1.0, 1.05, 2.0, 3.0]) * reach / 1e6)
        store.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert any(fresh[1:]), "the key expired now and then"
