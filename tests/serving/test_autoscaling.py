"""The number of replicas under spikes: laws of every decision, and a simulated fleet that takes time to start."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.serving.autoscaling import (
    Demand,
    DemandPolicy,
    ScalingRules,
    ScalingState,
    decide,
    demand_of,
    needed,
)
from headway.serving.gpu import GpuMeter
from headway.serving.load import LoadMeter

TICK_S = 0.5
RULES = ScalingRules(least=2, most=10, queue_rows=45)


@dataclass
class Fleet:
    """Replicas of `rows_per_s` each that serve `starting_s` after they were asked for, and report a mean of 3 s."""

    rules: ScalingRules
    rows_per_s: float = 1_000.0
    starting_s: float = 8.0
    queued: float = 0.0
    shed: float = 0.0
    now: float = 0.0
    state: ScalingState = field(default_factory=ScalingState)
    history: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.target = max(1, self.rules.least)
        self.ready_at = [0.0] * self.target
        self._recent: deque[tuple[float, float]] = deque(maxlen=round(3 / TICK_S))

    def run(self, rows_per_s: float, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            serving = sum(at <= self.now for at in self.ready_at)
            coming = rows_per_s * TICK_S
            capacity = serving * self.rows_per_s * TICK_S
            served = min(self.queued + coming, capacity)
            self.queued += coming - served
            room = serving * 100.0  # admission sheds what would wait longer
            self.shed += max(0.0, self.queued - room)
            self.queued = min(self.queued, room)
            self._recent.append((served / capacity * serving if serving else 0.0, self.queued))
            busy = sum(busy for busy, _ in self._recent) / len(self._recent)
            queued = sum(queued for _, queued in self._recent) / len(self._recent)
            demand = Demand(
                replicas=serving,
                queued_rows=queued,
                busy=busy + 0.02 * serving,  # what a replica does for itself
                rows_per_s=rows_per_s,
                asking=not serving and rows_per_s > 0,
            )
            after, self.state = decide(self.rules, self.state, demand, self.target, self.now)
            if after != self.target:
                self.history.append((self.now, after - self.target))
            self.ready_at += [self.now + self.starting_s] * (after - self.target)
            self.ready_at = sorted(self.ready_at)[:after]
            self.target = after


def reversals(history: list[tuple[float, int]]) -> int:
    return sum((one > 0) != (other > 0) for (_, one), (_, other) in pairwise(history))


@pytest.mark.parametrize(("times", "enough"), [(10, 2), (100, 9)])
@pytest.mark.parametrize("starting_s", [2.0, 8.0, 30.0])
def test_a_spike_is_followed_up_once_and_down_once(times: int, enough: int, starting_s: float) -> None:
    fleet = Fleet(RULES, starting_s=starting_s)
    fleet.run(50, 300)
    assert fleet.history == []
    fleet.run(50 * times, 300)
    assert enough <= fleet.target <= RULES.most
    shed = fleet.shed
    fleet.run(50 * times, 60)
    assert fleet.shed == shed
    fleet.run(50, 1_800)
    assert (fleet.target, fleet.queued) == (RULES.least, 0)
    assert reversals(fleet.history) == (1 if enough > RULES.least else 0)


def test_a_short_spike_of_hundred_times_brings_what_velocity_allows_and_no_swinging() -> None:
    fleet = Fleet(RULES)
    for _ in range(5):
        fleet.run(50, 30)
        fleet.run(5_000, 60)
    fleet.run(50, 1_800)
    assert fleet.target == RULES.least
    assert reversals(fleet.history) == 1


@pytest.mark.parametrize("load", [500.0, 1_150.0, 1_200.0, 2_390.0, 3_600.0, 5_900.0])
def test_noise_around_any_level_settles(load: float) -> None:
    """Twenty per cent either way, at loads on the edge between two numbers too."""
    fleet, dice = Fleet(RULES), random.Random(7)
    for _ in range(7_200):
        fleet.run(load * dice.uniform(0.8, 1.2), 1.0)
    late = [change for change in fleet.history if change[0] > 600]
    assert reversals(fleet.history) <= 2
    assert len(late) <= 2


def test_a_batch_tier_sleeps_and_wakes() -> None:
    fleet = Fleet(ScalingRules(least=0, most=4, queue_rows=45))
    fleet.run(100, 60)
    fleet.run(0, 590)
    assert fleet.target == 1
    fleet.run(0, 30)
    assert fleet.target == 0
    fleet.run(0, 3_600)
    assert fleet.target == 0
    fleet.run(20, 60)
    assert (fleet.target, fleet.queued) == (1, 0)


@settings(deadline=None, max_examples=60)
@given(
    bounds=st.tuples(st.integers(0, 4), st.integers(0, 8)),
    loads=st.lists(st.tuples(st.sampled_from([0.0, 10.0, 600.0, 3_000.0, 1e5]), st.integers(1, 200)), max_size=12),
    starting_s=st.sampled_from([0.5, 8.0, 60.0]),
    up=st.integers(1, 6),
    down=st.integers(1, 4),
)
def test_bounds_velocity_and_reversals_hold_under_any_load(
    bounds: tuple[int, int], loads: list[tuple[float, int]], starting_s: float, up: int, down: int
) -> None:
    least, most = bounds[0], max(1, sum(bounds))
    rules = ScalingRules(
        least=least, most=most, queue_rows=45, up_per_minute=up, down_per_minute=down, calm_s=20, reversal_s=30
    )
    fleet = Fleet(rules, starting_s=starting_s)
    for load, seconds in loads:
        fleet.run(load, seconds)
        assert least <= fleet.target <= most
    number = max(1, least)
    woken = set()
    for at, step in fleet.history:
        if number == 0:
            woken.add(at)
        number += step
        assert least <= number <= most
    steps = [change for change in fleet.history if change[0] not in woken]
    for at, _ in steps:
        minute = [step for other, step in steps if at - 60 < other <= at]
        assert sum(step for step in minute if step > 0) <= up
        assert -sum(step for step in minute if step < 0) <= down
    for (before, one), (after, other) in pairwise(steps):
        assert (one > 0) == (other > 0) or after - before >= 30 - 1e-6


@given(replicas=st.integers(1, 50), busy=st.floats(0, 1), queued=st.floats(0, 1e6), more=st.floats(0, 1))
def test_more_load_never_needs_fewer(replicas: int, busy: float, queued: float, more: float) -> None:
    demand = Demand(replicas=replicas, queued_rows=queued, busy=busy * replicas, rows_per_s=1)
    heavier = replace(demand, queued_rows=queued * (1 + more), busy=min(1.0, busy * (1 + more)) * replicas)
    assert needed(RULES, demand, 0.6) <= needed(RULES, heavier, 0.6) <= 2 * replicas
    assert needed(RULES, demand, 0.6 * 0.8) >= needed(RULES, demand, 0.6)


def test_bounds_that_changed_wait_for_nothing() -> None:
    demand = Demand(replicas=5, queued_rows=0, busy=2.0, rows_per_s=9)
    assert decide(RULES, ScalingState(down_at=0.0), demand, 1, 1.0)[0] == 2
    assert decide(RULES, ScalingState(up_at=0.0), demand, 40, 1.0)[0] == 10


def context(policy_state: dict[str, Any], *, target: int, now: float, **metrics: dict[str, float]) -> Any:
    return SimpleNamespace(
        aggregated_metrics=metrics,
        total_num_requests=0.0,
        target_num_replicas=target,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
        policy_state=policy_state,
        current_time=now,
    )


def test_the_policy_reads_what_replicas_report_and_keeps_its_state_in_serve() -> None:
    policy = DemandPolicy(queue_rows=45, up_per_minute=1)
    busy = {"busy": {"a": 0.9, "b": 0.95}, "queued_rows": {"a": 10.0, "b": 0.0}}
    target, state = policy(context({}, target=2, now=100.0, **busy))
    assert target == 3
    assert policy(context(state, target=3, now=101.0, busy={"a": 1.0, "b": 1.0, "c": 1.0}))[0] == 3
    assert policy(context(state, target=3, now=161.0, busy={"a": 1.0, "b": 1.0, "c": 1.0}))[0] == 4
    gpu = demand_of(context({}, target=2, now=0.0, busy={"a": 0.1, "b": 0.1}, gpu={"a": 0.8}))
    assert gpu.busy == pytest.approx(0.9)


def test_ray_makes_the_policy_of_a_configuration_and_calls_it() -> None:
    from ray.serve._private.autoscaling_state import _resolve_policy_callable
    from ray.serve.autoscaling_policy import _apply_autoscaling_config
    from ray.serve.config import AutoscalingConfig

    from headway.cluster.serve_config import serve_config
    from tests.cluster.test_serve_config import raised

    (deployment,) = serve_config("fraud", contract=raised(20_000))["applications"][0]["deployments"]
    config = AutoscalingConfig(**deployment["autoscaling_config"])
    policy = _apply_autoscaling_config(_resolve_policy_callable(config.policy))
    made = context({}, target=2, now=100.0, busy={"a": 1.0, "b": 1.0}, queued_rows={"a": 900.0, "b": 900.0})
    made.config, made.current_num_replicas, made.capacity_adjusted_max_replicas = config, 2, config.max_replicas
    target, state = policy(made)
    assert target == 4
    assert state["headway"]["up_at"] == 100.0


def test_a_replica_reports_the_busier_of_process_and_executor() -> None:
    clock, work, cpu = ManualClock(), SimpleNamespace(queued_rows=7, busy_s=1.0, rows=100), [10.0]
    meter = LoadMeter(work, clock, cpu_s=lambda: cpu[0], gpu=GpuMeter({}))
    assert meter.read() == {"queued_rows": 7.0, "rows_per_s": 0.0, "busy": 0.0}
    clock.advance(2_000_000)
    cpu[0], work.busy_s, work.rows = 10.5, 2.0, 130
    assert meter.read() == {"queued_rows": 7.0, "rows_per_s": 15.0, "busy": 0.5}
    clock.advance(1_000_000)
    cpu[0] = 12.0
    assert meter.read()["busy"] == 1.0
