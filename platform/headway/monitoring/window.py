"""Folds replicas' deltas into the open window and closes it when it is full; pure, so that a repeat gives the same.

Windows are measured in rows and dated by decision time: a replayed year gives the same verdicts as the year did.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from headway.core.counts import CountsDelta
from headway.core.types import Int64
from headway.monitoring.alarms import Alarm, alarm_of, judge
from headway.monitoring.budget import DriftBudget
from headway.monitoring.definitions import Monitor
from headway.monitoring.reference import Reference
from headway.monitoring.state import HISTORY, Accounts, MonitorState, OpenWindow, Verdict

_REPLICAS = 512
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Folded:
    """The state after a delta, and the alarm of the window that it closed, if any."""

    state: MonitorState
    alarm: Alarm | None = None


def follow(state: MonitorState, reference: Reference | None) -> MonitorState:
    """Turn to a new champion: the open window of another one can no longer be filled and is set aside."""
    version = "" if reference is None else reference.version
    profile = "" if reference is None else reference.profile_sha256
    if (state.version, state.profile_sha256) == (version, profile):
        return state
    if state.window.rows:
        state = _set_aside(state, "superseded", state.window.rows)
    return msgspec.structs.replace(state, version=version, profile_sha256=profile, window=OpenWindow())


def fold(
    state: MonitorState, delta: CountsDelta, *, reference: Reference | None, monitor: Monitor, budget: DriftBudget
) -> Folded:
    """Add one delta: merged, or set aside with its reason, or dropped as a duplicate; always accounted for."""
    expected = state.sequences.get(delta.replica)
    if expected is not None and delta.sequence < expected:
        accounts = state.accounts
        return Folded(_with(state, accounts, duplicate_deltas=accounts.duplicate_deltas + 1))
    state = _sequenced(state, delta, gap=delta.sequence - (expected or 0))
    reason = _unmergeable(delta, reference)
    if reason or reference is None:
        return Folded(_set_aside(state, reason or "other_version", max(0, delta.rows)))
    window = state.window
    counts = delta.array()
    if window.rows:
        counts = counts + _counts(window)
    merged = OpenWindow(
        counts=counts.astype("<i8").tobytes(),
        rows=window.rows + delta.rows,
        first_time=min(window.first_time, delta.first_time) if window.rows else delta.first_time,
        last_time=max(window.last_time, delta.last_time) if window.rows else delta.last_time,
    )
    state = msgspec.structs.replace(state, window=merged)
    if merged.rows < monitor.window_rows:
        return Folded(state)
    return _close(state, reference, monitor, budget)


def _close(state: MonitorState, reference: Reference, monitor: Monitor, budget: DriftBudget) -> Folded:
    window = state.window
    alpha = budget.alpha(window.last_time - (state.accounted_until or window.first_time))
    findings = judge(reference, _counts(window), monitor=monitor, budget=budget, alpha=alpha)
    alarm = alarm_of(
        findings,
        use_case=monitor.use_case,
        version=reference.version,
        first_time=window.first_time,
        last_time=window.last_time,
        rows=window.rows,
    )
    shown = tuple(finding for index, finding in enumerate(findings) if index < _SHOWN or finding.alarmed)
    verdict = Verdict(
        version=reference.version,
        first_time=window.first_time,
        last_time=window.last_time,
        rows=window.rows,
        alpha=alpha,
        comparisons=len(findings),
        findings=shown,
        alarm=None if alarm is None else alarm.id,
    )
    accounts = msgspec.structs.replace(state.accounts, compared=state.accounts.compared + window.rows)
    closed = msgspec.structs.replace(
        state,
        window=OpenWindow(),
        accounted_until=max(state.accounted_until, window.last_time),
        accounts=accounts,
        verdicts=(*state.verdicts, verdict)[-HISTORY:],
        alarms=state.alarms if alarm is None else (*state.alarms, alarm)[-HISTORY:],
        alarms_total=state.alarms_total + (alarm is not None),
        windows_total=state.windows_total + 1,
        budget_used=state.budget_used + alpha,
    )
    return Folded(closed, alarm)


def _unmergeable(delta: CountsDelta, reference: Reference | None) -> str:
    if reference is None or delta.version != reference.version:
        return "other_version"
    if delta.profile_sha256 != reference.profile_sha256:
        return "other_profile"
    if len(delta.counts) != 8 * reference.counts.size or delta.rows < 0 or delta.last_time < delta.first_time:
        return "malformed"
    counts = delta.array()
    sound = (not counts.size or int(counts.min()) >= 0) and bool((reference.rows(counts) == delta.rows).all())
    return "" if sound else "malformed"


def _sequenced(state: MonitorState, delta: CountsDelta, *, gap: int) -> MonitorState:
    sequences = {name: expected for name, expected in state.sequences.items() if name != delta.replica}
    sequences[delta.replica] = delta.sequence + 1
    if len(sequences) > _REPLICAS:
        sequences.pop(next(iter(sequences)))
    state = msgspec.structs.replace(state, sequences=sequences)
    return _with(state, state.accounts, lost_deltas=state.accounts.lost_deltas + gap) if gap else state


def _set_aside(state: MonitorState, reason: str, rows: int) -> MonitorState:
    known = state.accounts.set_aside
    return _with(state, state.accounts, set_aside={**known, reason: known.get(reason, 0) + rows})


def _with(state: MonitorState, accounts: Accounts, **changes: object) -> MonitorState:
    return msgspec.structs.replace(state, accounts=msgspec.structs.replace(accounts, **changes))


def _counts(window: OpenWindow) -> Int64:
    return np.frombuffer(window.counts, dtype="<i8").astype(np.int64)
