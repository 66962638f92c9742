from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.errors import QuotaExceeded, TooLarge, Unavailable
from headway.serving.admission import Admission, AdmissionLimits, Ceiling, Verdict
from headway.serving.limiter import Gcra
from headway.serving.priority import Priority


def limits(**changes: float | bool) -> AdmissionLimits:
    values: dict[str, float | bool] = {
        "rate": 1e6, "burst": 1e6, "ceiling": 100.0, "deadline_s": 0.05, "target_s": 0.02,
        "max_queued_rows": 500, "shed": True,
    }  # fmt: skip
    return AdmissionLimits(**{**values, **changes})  # type: ignore[arg-type]  # mixed values by name


@dataclass
class Waiting:
    """A backlog of normal calls, 1 ms a row."""

    normal: int = 0
    wait: float = 0.0
    class_rows: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self.class_rows = [0, self.normal, 0]

    def wait_s(self, rows: int = 0, priority: int = Priority.NORMAL) -> float:
        return self.wait

    def batch_s(self) -> float:
        return 0.001

    def row_s(self) -> float:
        return 0.001


EMPTY = Waiting()
BUSY = Waiting(10, 1.0)


@given(
    rate=st.floats(1, 100),
    burst=st.integers(1, 50),
    takes=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 10)), max_size=60),
)
def test_gcra_never_lets_more_through_than_burst_plus_rate(
    rate: float, burst: int, takes: list[tuple[float, int]]
) -> None:
    gcra, now, admitted = Gcra(rate=rate, burst=burst), 0.0, []
    for wait, cost in takes:
        now += wait
        if not gcra.take("a", cost, now):
            admitted.append((now, cost))
    for start in range(len(admitted)):
        total = 0
        for at, cost in admitted[start:]:
            total += cost
            assert total <= burst + rate * (at - admitted[start][0]) + 1e-6


def test_gcra_says_when_it_fits_and_a_refusal_costs_nothing() -> None:
    gcra = Gcra(rate=10, burst=5)
    assert gcra.take("a", 5, 0.0) == 0
    wait = gcra.take("a", 2, 0.0)
    assert wait == pytest.approx(0.2)
    assert gcra.take("a", 2, 0.1) == pytest.approx(0.1)
    assert gcra.take("a", 2, 0.2) == 0
    assert gcra.take("b", 5, 0.0) == 0


def test_forgetting_clients_is_bounded() -> None:
    gcra = Gcra(rate=1, burst=1, clients=3)
    for index in range(10):
        assert gcra.take(str(index), 1, 0.0) == 0
    assert gcra.take("9", 1, 0.0) > 0


def test_above_the_ceiling_what_would_be_late_is_shed() -> None:
    clock = ManualClock(0)
    admission = Admission(limits(burst=100.0), clock)
    assert admission.admit("a", 50, BUSY, left_s=5) is Verdict.SCORE
    with pytest.raises(Unavailable) as caught:
        admission.admit("b", 60, BUSY, left_s=5)
    assert caught.value.retry_after_s == pytest.approx(0.98)
    assert admission.admit("b", 60, Waiting(10, 0.019), left_s=5) is Verdict.SCORE
    clock.advance(3_000_000)
    assert admission.admit("a", 50, BUSY, left_s=5) is Verdict.SCORE


def test_a_call_that_cannot_make_its_own_deadline_is_shed_below_the_ceiling_too() -> None:
    admission = Admission(limits(), ManualClock())
    with pytest.raises(Unavailable, match="1000 ms of work"):
        admission.admit("a", 1, BUSY, left_s=0.9)
    assert admission.admit("a", 1, BUSY, left_s=1.3) is Verdict.SCORE


def test_the_shed_are_asked_back_one_after_the_other_as_fast_as_rows_are_served() -> None:
    """At 1,000 rows a second, 5,000 refused calls of 2 rows are spread over ten seconds, not sent back together."""
    admission = Admission(limits(ceiling=1.0, burst=2.0), ManualClock())
    admission.admit("a", 2, EMPTY, left_s=5)
    waits = []
    for _ in range(5_000):
        with pytest.raises(Unavailable) as caught:
            admission.admit("b", 2, BUSY, left_s=5)
        waits.append(caught.value.retry_after_s)
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.98)
    assert waits[-1] == pytest.approx(0.98 + 4_999 * 0.002)
    assert all(later - sooner == pytest.approx(0.002) for sooner, later in pairwise(waits))
    for _ in range(50_000):
        with pytest.raises(Unavailable) as caught:
            admission.admit("b", 2, BUSY, left_s=5)
    assert caught.value.retry_after_s == 30.0


def test_the_queue_is_bounded_and_a_class_does_not_see_those_below_it() -> None:
    admission, full = Admission(limits(), ManualClock()), Waiting(495)
    with pytest.raises(Unavailable) as caught:
        admission.admit("a", 10, full, left_s=5)
    assert caught.value.retry_after_s == pytest.approx(0.005)
    assert admission.admit("a", 10, full, left_s=5, priority=Priority.HIGH) is Verdict.SCORE
    assert admission.admit("a", 5, Waiting(240), left_s=5, priority=Priority.LOW) is Verdict.SCORE
    with pytest.raises(Unavailable):
        admission.admit("a", 11, Waiting(240), left_s=5, priority=Priority.LOW)


def test_beyond_fallback_answers_by_rules_until_they_do_not_keep_up_either() -> None:
    admission = Admission(limits(shed=False), ManualClock())
    assert admission.admit("a", 10, Waiting(495), left_s=5) is Verdict.FALLBACK
    admission.require_room(10, Waiting(490))
    with pytest.raises(Unavailable):
        admission.require_room(11, Waiting(490))


def test_more_rows_than_the_burst_can_never_fit() -> None:
    with pytest.raises(TooLarge):
        Admission(limits(burst=5.0), ManualClock()).admit("a", 6, EMPTY, left_s=5)


def test_quota_is_per_client() -> None:
    admission = Admission(limits(rate=1.0, burst=2.0), ManualClock())
    admission.admit("a", 2, EMPTY, left_s=5)
    with pytest.raises(QuotaExceeded):
        admission.admit("a", 1, EMPTY, left_s=5)
    assert admission.admit("b", 2, EMPTY, left_s=5) is Verdict.SCORE


def test_outcomes_have_a_rate_of_their_own_that_follows_the_contract() -> None:
    clock = ManualClock()
    admission = Admission(limits(rate=10.0, burst=20.0), clock)
    admission.admit("a", 20, EMPTY, left_s=5)
    admission.admit_outcomes("a", 100, queued_rows=0)
    with pytest.raises(QuotaExceeded) as caught:
        admission.admit_outcomes("a", 25, queued_rows=0)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    admission.admit_outcomes("b", 100, queued_rows=0)
    clock.advance(500_000)
    admission.admit_outcomes("a", 25, queued_rows=0)
    with pytest.raises(TooLarge, match="at most 100"):
        admission.admit_outcomes("a", 101, queued_rows=0)


def test_empty_requests_are_charged_too() -> None:
    admission = Admission(limits(rate=1.0, burst=1.0), ManualClock())
    for _ in range(5):
        admission.admit_outcomes("a", 0, queued_rows=0)
    with pytest.raises(QuotaExceeded):
        admission.admit_outcomes("a", 0, queued_rows=0)


def test_outcomes_wait_in_a_bounded_queue_and_a_refusal_costs_nothing() -> None:
    admission = Admission(limits(rate=10.0, burst=20.0), ManualClock())
    for _ in range(100):
        with pytest.raises(Unavailable) as caught:
            admission.admit_outcomes("a", 100, queued_rows=450)
        assert caught.value.retry_after_s == 1
    admission.admit_outcomes("a", 100, queued_rows=400)


@given(
    rate=st.floats(1, 1_000),
    depth=st.floats(1, 100),
    calls=st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 50)), max_size=60),
)
def test_what_conforms_to_rate_and_depth_is_never_above_and_a_flood_is_forgotten_in_a_second(
    rate: float, depth: float, calls: list[tuple[float, int]]
) -> None:
    ceiling, now, so_far = Ceiling(rate, depth), 0.0, [(0.0, 0)]
    for wait, rows in calls:
        now += wait
        so_far.append((now, rows))
        over = max(
            sum(count for _, count in so_far[start:]) - rate * (now - so_far[start][0]) for start in range(len(so_far))
        )
        above = ceiling.above(rows, now)
        if over <= depth - 1e-6:
            assert not above
    ceiling.above(10_000, now)
    assert not ceiling.above(0, now + 1.001)


def test_replicas_share_the_rate_but_not_what_a_client_may_send_at_once() -> None:
    for replicas, above in ((1, False), (4, True)):
        ceiling = Ceiling(100, 100)
        assert not ceiling.above(100, 0.0, replicas)
        assert ceiling.above(26, 1.0, replicas) is above


def test_only_what_is_shed_above_the_ceiling_is_excused() -> None:
    admission = Admission(limits(burst=10.0, ceiling=100.0), ManualClock())
    with pytest.raises(Unavailable):
        admission.admit("a", 1, BUSY, left_s=0.05)
    assert (admission.shed, admission.shed_above) == (1, 0)
    for _ in range(3):
        with pytest.raises(Unavailable):
            admission.admit("a", 10, BUSY, left_s=0.05)
    assert (admission.shed, admission.shed_above) == (4, 3)


def test_the_price_of_reasons_is_the_clients_and_no_load() -> None:
    admission = Admission(limits(rate=10, burst=100), ManualClock())
    assert admission.admit("ann", 4, EMPTY, left_s=1, extra=36) is Verdict.SCORE
    with pytest.raises(TooLarge, match="11 rows, counted as 110 with their reasons"):
        admission.admit("ann", 11, EMPTY, left_s=1, extra=99)
    with pytest.raises(QuotaExceeded):
        admission.admit("ann", 7, EMPTY, left_s=1, extra=63)
    assert admission.admit("ann", 6, EMPTY, left_s=1, extra=54) is Verdict.SCORE
    assert admission.admit("bob", 10, EMPTY, left_s=1, extra=90) is Verdict.SCORE
