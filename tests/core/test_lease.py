"""One holder at a time, whatever the clocks say."""

from __future__ import annotations

import pytest

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import Conflict, CorruptState
from headway.core.lease import DURATION, Lease, LeaseLost
from headway.monitoring.state import MonitorState, StateStore, read_state, reset_state


def lease(store: MemoryControlStore, holder: str, clock: ManualClock) -> Lease:
    return Lease(store, "monitor:u", holder=holder, clock=clock)


def test_a_second_holder_waits_for_expiry_and_the_first_one_notices() -> None:
    store, clock = MemoryControlStore(), ManualClock(1)
    first, second = lease(store, "a", clock), lease(store, "b", clock)
    assert first.acquire() == 1
    with pytest.raises(Conflict, match="held by a"):
        second.acquire()
    clock.advance(DURATION + 1)
    assert second.acquire() == 2
    with pytest.raises(LeaseLost):
        first.keep()
    first.release()  # not ours any more: the second one keeps it
    with pytest.raises(Conflict, match="held by b"):
        first.acquire()


def test_renewing_keeps_it_and_releasing_lets_the_next_in() -> None:
    store, clock = MemoryControlStore(), ManualClock(1)
    first, second = lease(store, "a", clock), lease(store, "b", clock)
    first.acquire()
    for _ in range(5):
        clock.advance(DURATION // 2)
        first.keep()
    with pytest.raises(Conflict):
        second.acquire()
    first.release()
    assert second.acquire() == 2


def test_a_restarted_holder_takes_its_own_lease_at_once_and_fences_its_former_self() -> None:
    store, clock = MemoryControlStore(), ManualClock(1)
    former, restarted = lease(store, "a", clock), lease(store, "a", clock)
    former.acquire()
    assert restarted.acquire() == 2
    clock.advance(DURATION // 2)
    with pytest.raises(LeaseLost):
        former.keep()


def test_a_late_writer_is_fenced_by_the_state_even_with_a_stopped_clock() -> None:
    store = MemoryControlStore()
    late, current = StateStore(store, "u", 1), StateStore(store, "u", 2)
    state = late.open()
    current.open()
    with pytest.raises(LeaseLost):
        late.save(state)
    with pytest.raises(LeaseLost, match="epoch 1 is over"):
        StateStore(store, "u", 1).open()
    assert current.save(MonitorState(cursor="5")).epoch == 2
    assert read_state(store, "u").cursor == "5"


def test_unreadable_records_are_kept_and_named() -> None:
    store, clock = MemoryControlStore(), ManualClock(1)
    store.put("lease:monitor:u", b"{", expected=0)
    store.put("monitor:u", b"\xc1", expected=0)
    with pytest.raises(CorruptState, match="lease:monitor:u"):
        lease(store, "a", clock).acquire()
    with pytest.raises(CorruptState, match="headway:monitor:u"):
        read_state(store, "u")
    assert store.get("monitor:u") is not None


def test_a_reset_forgets_windows_but_keeps_its_place_and_its_fence() -> None:
    store = MemoryControlStore()
    reset_state(store, "u")
    assert store.get("monitor:u") is None
    running = StateStore(store, "u", 3)
    running.open()
    running.save(MonitorState(cursor="9", sequences={"r": 4}, windows_total=7, alarms_total=1))
    reset_state(store, "u")
    assert read_state(store, "u") == MonitorState(epoch=3, cursor="9", sequences={"r": 4})
    with pytest.raises(LeaseLost):
        running.save(MonitorState())
