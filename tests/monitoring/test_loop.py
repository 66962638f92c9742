"""The loop's rules, as a pure machine: what starts an episode, what ends it, what is audited."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import GateFailed, Unavailable
from headway.core.ports import Candidate
from headway.core.times import DAY, HOUR, MINUTE
from headway.monitoring.alarms import DRIFT, QUALITY, Alarm, Finding
from headway.monitoring.loop import (
    ATTEMPTS,
    LoopState,
    Phase,
    on_alarm,
    on_candidate,
    on_error,
    on_labels,
    on_promoted,
    on_redeployed,
    pending,
)
from headway.monitoring.statistics import Effect
from tests.monitoring.support import POLICY, START, ref


def alarm(at: int = START, *, kind: str = DRIFT, version: str = "1") -> Alarm:
    effect = Effect(statistic="ks", value=0.5, lower=0.4, p_value=0.0, reference=10_000, current=1_000)
    finding = Finding(feature="amount", part="values", kind=kind, effect=effect, alarmed=True)
    return Alarm(
        id=f"{at:064x}",
        use_case="fraud",
        version=version,
        kind=kind,
        first_time=at - HOUR,
        last_time=at,
        rows=1_000,
        findings=(finding,),
    )


def through(state: LoopState) -> LoopState:
    """Carry an episode to its end."""
    state = on_labels(state, POLICY.min_new_labels, POLICY).state
    state = on_candidate(state, Candidate(version=ref("2"))).state
    return on_redeployed(on_promoted(state, 2).state).state


def test_an_episode_from_alarm_to_redeploy() -> None:
    transition = on_alarm(LoopState(), alarm(), POLICY)
    steps = list(transition.steps)
    request = transition.state.request
    assert request is not None
    assert (request.replaces, request.as_of, request.alarm) == ("1", START, alarm().id)
    assert "amount" in request.reason
    transition = on_labels(transition.state, 500, POLICY)
    steps += transition.steps
    transition = on_candidate(transition.state, Candidate(version=ref("2"), gates=("ap 0.6 >= 0.5",), refs=("s" * 64,)))
    steps += transition.steps
    transition = on_promoted(transition.state, 7)
    steps += transition.steps
    assert (transition.state.phase, transition.state.generation) == (Phase.REDEPLOY, 7)
    transition = on_redeployed(transition.state)
    steps += transition.steps
    assert transition.state == LoopState(starts=(START,), handled=(alarm().id,))
    assert [(step.action, step.outcome.split(":")[0]) for step in steps] == [
        ("loop.alarm", "started"),
        ("loop.labels", "done"),
        ("loop.retrain", "started"),
        ("loop.retrain", "done"),
        ("loop.gates", "done"),
        ("loop.promote", "done"),
        ("loop.redeploy", "done"),
    ]
    assert all(alarm().id in step.refs for step in steps)


def test_a_repeated_alarm_changes_nothing() -> None:
    state = on_alarm(LoopState(), alarm(), POLICY).state
    again = on_alarm(state, alarm(), POLICY)
    assert again.state == state
    assert again.steps == ()


def test_no_second_episode_while_one_runs() -> None:
    state = on_alarm(LoopState(), alarm(), POLICY).state
    other = on_alarm(state, alarm(START + HOUR), POLICY)
    assert other.state.request == state.request
    assert other.steps[0].outcome == "skipped: an episode is in labels"


@pytest.mark.parametrize(("after", "starts"), [(23 * HOUR, False), (24 * HOUR, True)])
def test_cooldown_counts_in_decision_time(after: int, starts: bool) -> None:
    done = through(on_alarm(LoopState(), alarm(), POLICY).state)
    transition = on_alarm(done, alarm(START + after), POLICY)
    assert (transition.state.phase is Phase.LABELS) is starts
    assert starts or "cooldown of 1d" in transition.steps[0].outcome


def test_no_more_than_the_weeks_retrainings() -> None:
    state = LoopState()
    for day in (0, 2):
        state = through(on_alarm(state, alarm(START + day * DAY), POLICY).state)
    refused = on_alarm(state, alarm(START + 4 * DAY), POLICY)
    assert refused.steps[0].outcome == "skipped: 2 retrainings in 7d"
    assert on_alarm(refused.state, alarm(START + 7 * DAY), POLICY).state.phase is Phase.LABELS


def test_broken_data_and_reporting_monitors_never_retrain() -> None:
    assert "data quality" in on_alarm(LoopState(), alarm(kind=QUALITY), POLICY).steps[0].outcome
    assert "only reports" in on_alarm(LoopState(), alarm(), POLICY, retrain=False).steps[0].outcome


def test_too_few_labels_end_the_episode_without_the_cooldown() -> None:
    waiting = on_labels(on_alarm(LoopState(), alarm(), POLICY).state, 99, POLICY)
    assert waiting.steps[0].outcome == "skipped: 99 new labels of 100"
    assert on_alarm(waiting.state, alarm(START + MINUTE), POLICY).state.phase is Phase.LABELS


def test_a_failed_gate_ends_the_episode_and_uses_the_cooldown() -> None:
    training = on_labels(on_alarm(LoopState(), alarm(), POLICY).state, 100, POLICY).state
    failed = on_error(training, GateFailed("ap 0.3 < 0.5"), now=0)
    assert failed.state.phase is Phase.IDLE
    assert (failed.steps[0].action, failed.steps[0].outcome) == ("loop.gates", "failed: ap 0.3 < 0.5")
    assert "cooldown" in on_alarm(failed.state, alarm(START + HOUR), POLICY).steps[0].outcome


def test_other_errors_are_tried_again_later_and_then_given_up() -> None:
    state = on_labels(on_alarm(LoopState(), alarm(), POLICY).state, 100, POLICY).state
    for attempt in range(1, ATTEMPTS + 1):
        assert state.phase is Phase.RETRAIN
        transition = on_error(state, Unavailable("registry\naway", retry_after_s=1.0), now=1_000)
        state = transition.state
        assert transition.steps[0].outcome == f"failed: unavailable: registry away (attempt {attempt} of {ATTEMPTS})"
        if attempt < ATTEMPTS:
            assert pending(state, 1_000) is None
            assert pending(state, state.not_before) is Phase.RETRAIN
    assert state.phase is Phase.IDLE


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3 * DAY), st.booleans(), st.sampled_from(["ok", "labels", "gate", "error"]))))
def test_whatever_happens_cooldown_and_weekly_budget_hold(items: list[tuple[int, bool, str]]) -> None:
    state, now, starts = LoopState(), START, list[int]()
    for gap, broken, fate in items:
        now += gap
        state = on_alarm(state, alarm(now, kind=QUALITY if broken else DRIFT), POLICY).state
        if state.phase is Phase.IDLE:
            continue
        state = on_labels(state, 0 if fate == "labels" else 1_000, POLICY).state
        if state.phase is not Phase.RETRAIN:
            continue
        starts.append(now)
        if fate == "gate":
            state = on_error(state, GateFailed("low"), 0).state
        while fate == "error" and state.phase is not Phase.IDLE:
            state = on_error(state, Unavailable("away", retry_after_s=1.0), 0).state
        if fate == "ok":
            state = on_candidate(state, Candidate(version=ref("2"))).state
            state = on_redeployed(on_promoted(state, 1).state).state
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=LoopState) == state
    assert all(later - earlier >= POLICY.cooldown for earlier, later in pairwise(starts))
    assert all(sum(0 <= end - start < 7 * DAY for start in starts) <= POLICY.max_per_week for end in starts)
