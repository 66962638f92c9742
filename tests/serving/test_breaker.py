"""The breaker against a model of itself: states, pauses, one trial at a time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.serving.breaker import Breaker, State


def test_it_opens_at_the_limit_and_one_caller_tries_after_the_pause() -> None:
    clock = ManualClock()
    breaker = Breaker(clock, name="features")
    for _ in range(3):
        assert (breaker.state, breaker.acquire()) == (State.CLOSED, True)
        breaker.failed()
    assert (breaker.state, breaker.acquire()) == (State.OPEN, False)
    clock.advance(1_000_000)
    assert [breaker.acquire() for _ in range(5)] == [True, False, False, False, False]
    assert breaker.state is State.HALF_OPEN
    breaker.failed()
    assert (breaker.state, breaker.acquire()) == (State.OPEN, False)
    clock.advance(1_000_000)
    assert breaker.acquire()
    breaker.succeeded()
    assert [breaker.acquire() for _ in range(5)] == [True] * 5
    assert (breaker.state, breaker.opened) == (State.CLOSED, 2)


def test_a_success_forgets_failures_before_it() -> None:
    breaker = Breaker(ManualClock(), name="x")
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.state is State.CLOSED


def test_a_trial_that_never_reports_is_lost_after_the_pause() -> None:
    clock = ManualClock()
    breaker = Breaker(clock, name="x", failures=1)
    breaker.failed()
    clock.advance(1_000_000)
    assert breaker.acquire()
    assert not breaker.acquire()
    clock.advance(1_000_000)
    assert breaker.acquire()


@settings(max_examples=200)
@given(steps=st.lists(st.sampled_from(["call", "ok", "bad", "wait"]), max_size=60), limit=st.integers(1, 4))
def test_not_more_than_one_trial_per_pause_and_never_shut_for_good(steps: list[str], limit: int) -> None:
    clock, trials = ManualClock(), list[float]()
    breaker = Breaker(clock, name="x", failures=limit, pause_s=1.0)
    for step in steps:
        if step == "wait":
            clock.advance(300_000)
        elif step == "call":
            closed = breaker.state is State.CLOSED
            if breaker.acquire() and not closed:
                trials.append(clock.monotonic())
        elif step == "ok":
            breaker.succeeded()
            trials.clear()
        else:
            breaker.failed()
    assert all(b - a >= 1.0 for a, b in pairwise(trials))
    clock.advance(1_000_000)
    assert breaker.acquire()
