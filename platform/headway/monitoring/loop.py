"""The loop from an alarm to a new champion, as a pure state machine.

    idle ─alarm→ labels ─enough→ retrain ─gates passed→ promote → redeploy → idle
                   └ too few → idle   └ gates failed → idle

No step acts by itself: `pending` says what to do next, the `on_…` functions say what follows. The state is saved in
between, so that a killed process repeats at most the act it was in; acts carry the episode and are idempotent. Decision
time rules cooldown and weeks; the machine's clock rules only the delay between attempts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from headway.core.errors import GateFailed, HeadwayError
from headway.core.ports import Candidate, RetrainRequest
from headway.core.times import DAY, SECOND, format_duration, format_time
from headway.monitoring.alarms import QUALITY, Alarm
from headway.monitoring.budget import RetrainPolicy

ATTEMPTS = 3
_DELAY = 5 * SECOND
_REMEMBERED = 64


class Phase(StrEnum):
    """What the loop is about to do or doing."""

    IDLE = "idle"
    LABELS = "labels"
    RETRAIN = "retrain"
    PROMOTE = "promote"
    REDEPLOY = "redeploy"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One audited step."""

    action: str
    """`loop.<what>`."""
    outcome: str
    """started | done | skipped | failed | abandoned, and why."""
    refs: tuple[str, ...] = ()
    """Hashes of alarm and evidence; equal refs and action are the same step, repeated after a crash."""


class LoopState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the loop is; everything it needs to go on after a kill."""

    phase: Phase = Phase.IDLE
    request: RetrainRequest | None = None
    candidate: Candidate | None = None
    generation: int = 0
    attempts: int = 0
    not_before: int = 0
    """Machine time before which the next attempt must not start."""
    starts: tuple[int, ...] = ()
    """Decision times at which retrainings started, last seven days."""
    handled: tuple[str, ...] = ()
    """Alarms that got their answer."""


@dataclass(frozen=True, slots=True)
class Transition:
    """The next state and what to audit."""

    state: LoopState
    steps: tuple[Step, ...] = ()


def on_alarm(state: LoopState, alarm: Alarm, policy: RetrainPolicy, *, retrain: bool = True) -> Transition:
    """Answer an alarm: start an episode, or say why not. A repeated alarm changes nothing."""
    if alarm.id in state.handled:
        return Transition(state)
    state = msgspec.structs.replace(state, handled=(*state.handled, alarm.id)[-_REMEMBERED:])
    reason = _refusal(state, alarm, policy, retrain=retrain)
    if reason:
        return Transition(state, (Step(action="loop.alarm", outcome=f"skipped: {reason}", refs=(alarm.id,)),))
    request = RetrainRequest(
        use_case=alarm.use_case,
        episode=f"{alarm.use_case}-{alarm.id[:16]}",
        alarm=alarm.id,
        as_of=alarm.last_time,
        replaces=alarm.version,
        reason=f"drift of {', '.join(alarm.features[:5])} in {alarm.rows} decisions to {format_time(alarm.last_time)}",
    )
    begun = msgspec.structs.replace(
        state, phase=Phase.LABELS, request=request, candidate=None, generation=0, attempts=0, not_before=0
    )
    return Transition(begun, (Step(action="loop.alarm", outcome="started", refs=(alarm.id,)),))


def _refusal(state: LoopState, alarm: Alarm, policy: RetrainPolicy, *, retrain: bool) -> str:
    if not retrain:
        return "the monitor only reports"
    if alarm.kind == QUALITY:
        return "data quality: mend the source, retraining would learn the damage"
    if state.phase is not Phase.IDLE:
        return f"an episode is in {state.phase}"
    if state.starts and alarm.last_time - max(state.starts) < policy.cooldown:
        return f"cooldown of {format_duration(policy.cooldown)}"
    week = [start for start in state.starts if alarm.last_time - start < 7 * DAY]
    if len(week) >= policy.max_per_week:
        return f"{len(week)} retrainings in 7d"
    return ""


def pending(state: LoopState, now: int) -> Phase | None:
    """Return the act to do now, or None; `now` is machine time."""
    return None if state.phase is Phase.IDLE or now < state.not_before else state.phase


def on_labels(state: LoopState, count: int, policy: RetrainPolicy) -> Transition:
    """Go on if there is enough to learn from; else end without using up the cooldown: the next window asks again."""
    request = _request(state)
    if count < policy.min_new_labels:
        outcome = f"skipped: {count} new labels of {policy.min_new_labels}"
        return Transition(_ended(state), (Step(action="loop.labels", outcome=outcome, refs=(request.alarm,)),))
    starts = tuple(start for start in state.starts if request.as_of - start < 7 * DAY)
    started = msgspec.structs.replace(state, phase=Phase.RETRAIN, attempts=0, starts=(*starts, request.as_of))
    steps = (
        Step(action="loop.labels", outcome=f"done: {count} new labels", refs=(request.alarm,)),
        Step(action="loop.retrain", outcome="started", refs=(request.alarm,)),
    )
    return Transition(started, steps)


def on_candidate(state: LoopState, candidate: Candidate) -> Transition:
    """The gates have passed: promote."""
    request = _request(state)
    refs = (request.alarm, candidate.version.statement_sha256, *candidate.refs)
    steps = (
        Step(action="loop.retrain", outcome=f"done: version {candidate.version.version}", refs=refs),
        Step(action="loop.gates", outcome=f"done: {'; '.join(candidate.gates) or 'no gate declared'}", refs=refs),
    )
    return Transition(
        msgspec.structs.replace(state, phase=Phase.PROMOTE, candidate=candidate, attempts=0, not_before=0), steps
    )


def on_promoted(state: LoopState, generation: int) -> Transition:
    """The routing record names the candidate: bring it into the replicas."""
    step = Step(action="loop.promote", outcome=f"done: generation {generation}", refs=(_request(state).alarm,))
    return Transition(
        msgspec.structs.replace(state, phase=Phase.REDEPLOY, generation=generation, attempts=0, not_before=0), (step,)
    )


def on_redeployed(state: LoopState) -> Transition:
    """The episode is over."""
    step = Step(action="loop.redeploy", outcome="done", refs=(_request(state).alarm,))
    return Transition(_ended(state), (step,))


def on_superseded(state: LoopState, champion: str) -> Transition:
    """Someone else has moved the champion meanwhile: a person's decision stands."""
    step = Step(
        action=f"loop.{state.phase}",
        outcome=f"abandoned: version {champion or 'none'} was made champion meanwhile",
        refs=(_request(state).alarm,),
    )
    return Transition(_ended(state), (step,))


def on_error(state: LoopState, error: Exception, now: int) -> Transition:
    """Failed gates and bad definitions end the episode; anything else is tried again, three times in all."""
    request = _request(state)
    text = _line(str(error)) or type(error).__name__
    if isinstance(error, GateFailed):
        step = Step(action="loop.gates", outcome=f"failed: {text}", refs=(request.alarm,))
        return Transition(_ended(state), (step,))
    attempts = state.attempts + 1
    code = error.code if isinstance(error, HeadwayError) else type(error).__name__
    step = Step(
        action=f"loop.{state.phase}",
        outcome=f"failed: {code}: {text} (attempt {attempts} of {ATTEMPTS})",
        refs=(request.alarm,),
    )
    if attempts >= ATTEMPTS:
        return Transition(_ended(state), (step,))
    return Transition(msgspec.structs.replace(state, attempts=attempts, not_before=now + _DELAY * attempts), (step,))


def _line(text: str) -> str:
    """Return the text as one printable line of at most 300 characters, as the audit log takes it."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())[:300]


def _request(state: LoopState) -> RetrainRequest:
    assert state.request is not None, "a phase other than idle has a request"
    return state.request


def _ended(state: LoopState) -> LoopState:
    return msgspec.structs.replace(
        state, phase=Phase.IDLE, request=None, candidate=None, generation=0, attempts=0, not_before=0
    )
