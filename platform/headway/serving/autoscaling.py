"""How many replicas a use case needs: a pure function of demand, state and time, and its form as a policy of Ray Serve.

Serve's own metric counts requests that it routes itself, and the hot path passes it by; so replicas report what they
know (`record_autoscaling_stats`): rows that wait, and the busiest of loop, executor and GPU. Demand that one direction
answers is not answered in the other for a while, changes per minute are bounded, and replicas go only after a calm, to
the highest need that the calm saw: the number follows load without swinging. Bounds are the contract's.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

TARGET_BUSY = 0.6
_MINUTE_S = 60.0
_NEVER = -1e18


@dataclass(frozen=True, kw_only=True)
class ScalingRules:
    """What the contract and its operators fix."""

    least: int
    """Replicas, whatever the load; 0: the last one goes when nobody asks."""
    most: int
    queue_rows: float
    """Rows that may wait in one replica."""
    target_busy: float = TARGET_BUSY
    """Share of its time that a replica is meant to work."""
    slack: float = 0.8
    """A smaller number must do with this part of `target_busy`: between the two nothing changes."""
    up_per_minute: int = 6
    down_per_minute: int = 2
    calm_s: float = 120.0
    """How long less must have been enough before replicas go."""
    reversal_s: float = 60.0
    """After one direction, the other waits as long."""
    idle_s: float = 600.0
    """How long nobody must have asked before the last replica goes."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What the replicas that serve report, together."""

    replicas: int
    """That report."""
    queued_rows: float
    busy: float
    """Sum of their shares, each in [0, 1]."""
    rows_per_s: float
    """Served together; an idle replica is never quite idle, so that only this says that nobody asks."""
    asking: bool = False
    """Requests wait where no replica is."""


@dataclass(frozen=True, kw_only=True)
class ScalingState:
    """What is remembered between two decisions."""

    changes: tuple[tuple[float, int], ...] = ()
    """(time, replicas more or less) of the last minute."""
    up_at: float = _NEVER
    down_at: float = _NEVER
    low_since: float | None = None
    """Since when less is enough."""
    low_most: int = 0
    """The most that was needed since then."""


def needed(rules: ScalingRules, demand: Demand, share: float) -> int:
    """Return how many replicas do the work at a share of their time, at most twice those that report.

    None do only where nobody asks.
    """
    waiting = min(2.0 * demand.replicas, demand.queued_rows / rules.queue_rows)
    number = math.ceil(max(demand.busy / share, waiting) - 1e-9)
    return number if number > 1 else int(demand.rows_per_s > 0 or demand.queued_rows > 0)


def decide(
    rules: ScalingRules, state: ScalingState, demand: Demand, target: int, now: float
) -> tuple[int, ScalingState]:
    """Return the number of replicas to have, given that `target` are wanted already, and what to remember."""
    changes = tuple(change for change in state.changes if change[0] > now - _MINUTE_S)
    bounded = min(max(target, rules.least), rules.most)
    if bounded != target:  # the contract changed, or somebody scaled by hand: bounds wait for nothing
        return bounded, ScalingState(changes=changes, up_at=state.up_at, down_at=state.down_at)
    if demand.replicas == 0:  # none reports: those that start are awaited, and who asks of none gets one
        woken = 1 if target == 0 and demand.asking else target
        return woken, _remember(state, changes, woken - target, now)
    up = min(max(needed(rules, demand, rules.target_busy), rules.least), rules.most)
    low = min(max(needed(rules, demand, rules.target_busy * rules.slack), rules.least), rules.most)
    if up > target:
        room = rules.up_per_minute - sum(step for _, step in changes if step > 0)
        step = min(up - target, room) if now >= state.down_at + rules.reversal_s else 0
        return target + max(0, step), _remember(state, changes, max(0, step), now)
    if low >= target:
        return target, _remember(state, changes, 0, now)
    since = now if state.low_since is None else state.low_since
    most = low if state.low_since is None else max(low, state.low_most)
    calm_s = rules.idle_s if target == 1 else rules.calm_s
    step = 0
    if now >= max(since + calm_s, state.up_at + rules.reversal_s):
        room = rules.down_per_minute + sum(step for _, step in changes if step < 0)
        step = max(0, min(target - max(most, 1 if target > 1 else 0), room))
    if step:
        return target - step, _remember(state, changes, -step, now)
    return target, replace(state, changes=changes, low_since=since, low_most=most)


def _remember(state: ScalingState, changes: tuple[tuple[float, int], ...], step: int, now: float) -> ScalingState:
    """Return the state after a step, with the calm forgotten."""
    return ScalingState(
        changes=(*changes, (now, step)) if step else changes,
        up_at=now if step > 0 else state.up_at,
        down_at=now if step < 0 else state.down_at,
    )


class DemandPolicy:
    """The policy that a Serve configuration names; Serve makes it once and calls it ten times a second."""

    def __init__(self, **rules: Any) -> None:
        self._rules = {"least": 0, "most": 1, **rules}

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return replicas and state, in builtin types; bounds are those that Serve holds at the moment."""
        rules = ScalingRules(
            **{
                **self._rules,
                "least": context.capacity_adjusted_min_replicas,
                "most": context.capacity_adjusted_max_replicas,
            }
        )
        remembered = context.policy_state.get("headway")
        state = ScalingState()
        if remembered is not None:
            changes = tuple((float(at), int(step)) for at, step in remembered["changes"])
            state = ScalingState(**{**remembered, "changes": changes})
        target = context.target_num_replicas
        after, state = decide(rules, state, demand_of(context), target, float(context.current_time or 0.0))
        return after, {"headway": asdict(state)}


def demand_of(context: AutoscalingContext) -> Demand:
    """Return the demand that the replicas of a deployment reported last."""
    metrics = context.aggregated_metrics or {}
    busy, gpu = metrics.get("busy", {}), metrics.get("gpu", {})
    return Demand(
        replicas=len(busy),
        queued_rows=sum(metrics.get("queued_rows", {}).values()),
        busy=sum(min(1.0, max(share, gpu.get(replica, 0.0))) for replica, share in busy.items()),
        rows_per_s=sum(metrics.get("rows_per_s", {}).values()),
        asking=context.total_num_requests > 0,
    )
