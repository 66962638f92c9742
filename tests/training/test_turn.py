"""One training of a use case at a time."""

from __future__ import annotations

import threading

import pytest

from headway.core.clock import ManualClock, SystemClock
from headway.core.control import MemoryControlStore, Record
from headway.core.errors import Conflict, Unavailable
from headway.core.lease import LeaseLost
from headway.core.times import SECOND
from headway.training.turn import DURATION, turn


def test_a_second_run_is_told_who_trains() -> None:
    store, clock = MemoryControlStore(), ManualClock(1)
    with turn(store, "shop", holder="ann (run 1)", clock=clock) as check:
        check()
        with (
            pytest.raises(Conflict, match=r"shop is being trained by ann \(run 1\).*within 30 s"),
            turn(store, "shop", holder="ben", clock=clock),
        ):
            pass
        with turn(store, "other", holder="ben", clock=clock):
            pass
    with turn(store, "shop", holder="ben", clock=clock):
        pass


def test_the_turn_of_a_killed_run_is_taken_over_and_it_may_not_go_on() -> None:
    store, clock = MemoryControlStore(), ManualClock(1)
    with turn(store, "shop", holder="killed", clock=clock) as check:
        clock.advance(DURATION + 1)
        with turn(store, "shop", holder="ben", clock=clock) as other:
            other()
            with pytest.raises(LeaseLost):
                check()


def test_a_run_that_fails_gives_its_turn_back() -> None:
    store, clock = MemoryControlStore(), ManualClock(1)
    with pytest.raises(ZeroDivisionError), turn(store, "shop", holder="ann", clock=clock):
        raise ZeroDivisionError
    with turn(store, "shop", holder="ben", clock=clock):
        pass


class Away(MemoryControlStore):
    """A store that is away once it is told so; counts what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.refused = threading.Event()
        self.renewed = threading.Event()

    def put(self, key: str, value: bytes, *, expected: int) -> int:
        if self.away:
            self.refused.set()
            raise Unavailable("away", retry_after_s=1.0)
        if expected:
            self.renewed.set()
        return super().put(key, value, expected=expected)

    def get(self, key: str) -> Record | None:
        return super().get(key)


def test_the_turn_is_renewed_while_the_run_goes_on_even_after_the_store_was_away() -> None:
    store = Away()
    with turn(store, "shop", holder="ann", clock=SystemClock(), duration=SECOND) as check:
        assert store.renewed.wait(60)
        store.away = True
        assert store.refused.wait(60)
        store.away = False
        store.renewed.clear()
        assert store.renewed.wait(60)
        check()
