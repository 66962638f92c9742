"""The monitor as a whole: a loop round, two monitors at once, and a kill at every point."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from headway.core.control import ControlStore, MemoryControlStore, Record
from headway.core.errors import Conflict, GateFailed, Tampered, Unavailable
from headway.core.lease import DURATION, LeaseLost
from headway.core.routing import promote, read_routing
from headway.core.times import HOUR
from headway.governance.audit_event import AuditEvent, MemoryAudit
from headway.monitoring.acts import Act, Continue
from headway.monitoring.loop import Phase
from headway.monitoring.service import MonitorService
from headway.monitoring.state import read_state
from tests.monitoring.support import START, USE_CASE, World, delta, ref


def publish(world: World, rows: int = 1_200, *, shift: float = 0.8, parts: int = 4, start: int = 0) -> None:
    rng = np.random.default_rng(31)
    for index in range(parts):
        world.channel.publish(
            delta(start + index, rows // parts, rng=rng, shift=shift, first_time=START + index * HOUR)
        )


def ticks(service: MonitorService, times: int = 12) -> None:
    for _ in range(times):
        service.tick()


class Held:
    """Runs no act before it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Act, Future[Continue]]] = []

    def __call__(self, name: str, act: Act) -> Future[Continue]:
        future: Future[Continue] = Future()
        self.waiting.append((act, future))
        return future

    def release(self) -> None:
        for act, future in self.waiting:
            future.set_result(act())
        self.waiting.clear()


def test_drift_goes_round_the_loop_and_every_step_is_audited() -> None:
    world = World()
    publish(world)
    service = world.service()
    ticks(service)
    routing = read_routing(world.store, USE_CASE)
    assert (routing.generation, routing.champion, routing.previous) == (2, ref("2"), ref("1"))
    assert world.acts.redeployed == [2]
    assert world.actions == [
        "monitor.alarm.drift",
        "monitor.loop.alarm",
        "monitor.loop.labels",
        "monitor.loop.retrain",
        "monitor.loop.retrain",
        "monitor.loop.gates",
        "monitor.loop.promote",
        "monitor.loop.redeploy",
    ]
    state = read_state(world.store, USE_CASE)
    assert (state.loop.phase, state.alarms_total, state.version, state.outbox) == (Phase.IDLE, 1, "2", ())
    assert world.acts.asked[0].as_of == state.alarms[0].last_time == START + 4 * HOUR


def test_no_drift_no_act() -> None:
    world = World()
    publish(world, rows=5_000, shift=0.0, parts=10)
    service = world.service()
    ticks(service)
    assert service.state.windows_total == 5
    assert service.state.accounts.compared == 5_000
    assert world.actions == []


def test_a_failed_gate_leaves_the_champion() -> None:
    world = World()
    world.acts.fails.append(GateFailed("average_precision 0.3 < 0.55"))
    publish(world)
    ticks(world.service())
    assert read_routing(world.store, USE_CASE).champion == ref("1")
    assert world.outcomes[-1] == "loop.gates failed: average_precision 0.3 < 0.55"


def test_an_outage_is_waited_out() -> None:
    world = World()
    world.acts.fails.append(Unavailable("registry away", retry_after_s=1.0))
    publish(world)
    service = world.service()
    ticks(service)
    assert service.state.loop.phase is Phase.RETRAIN
    world.clock.advance(service.state.loop.not_before - world.clock.now())
    ticks(service)
    assert read_routing(world.store, USE_CASE).champion == ref("2")


def test_a_persons_promotion_during_a_retraining_stands() -> None:
    world = World()
    publish(world)
    held = Held()
    service = world.service(run=held)
    ticks(service, 2)
    held.release()  # labels
    ticks(service, 2)
    promote(world.store, USE_CASE, ref("9"), reason="by hand", by="ann", now=0)
    held.release()  # retrain
    ticks(service, 4)
    assert read_routing(world.store, USE_CASE).champion == ref("9")
    assert "abandoned: version 9" in world.outcomes[-1]


def test_counts_go_on_while_a_retraining_runs() -> None:
    world = World()
    publish(world)
    service = world.service(run=Held())
    ticks(service, 3)
    publish(world, start=4)
    ticks(service, 2)
    assert service.state.windows_total == 2
    assert world.outcomes[-1] == "loop.alarm skipped: an episode is in labels"


def test_two_monitors_cannot_both_act() -> None:
    """The first one is paused past its lease, between the counting and the promotion, and then goes on."""
    world = World()
    publish(world)
    held = Held()
    first = world.service("first", run=held)
    ticks(first, 2)
    with pytest.raises(Conflict, match="held by first"):
        world.service("second")
    world.clock.advance(DURATION + 1)
    second = world.service("second")
    held.release()
    with pytest.raises(LeaseLost):
        first.tick()
    ticks(second)
    assert world.acts.redeployed == [2]
    assert len(world.acts.trained) == 1
    assert len([action for action in world.actions if action == "monitor.loop.promote"]) == 1
    assert read_state(world.store, USE_CASE).accounts.compared == 1_200


def test_a_paused_monitor_is_fenced_even_if_its_lease_looks_fresh() -> None:
    world = World()
    first = world.service("same")
    second = world.service("same")  # a restart of the same actor: no wait
    publish(world)
    with pytest.raises(LeaseLost):
        first.tick()
    ticks(second)
    assert read_routing(world.store, USE_CASE).generation == 2


def test_an_artefact_that_does_not_verify_stops_the_monitor_before_it_counts() -> None:
    world = World()
    service = world.service()
    publish(world)

    def tampered(champion: object) -> object:
        raise Tampered("profile.json differs from what was signed")

    object.__setattr__(service._parts, "references", tampered)
    with pytest.raises(Tampered):
        service.tick()
    assert read_state(world.store, USE_CASE).cursor == ""


class Killed(BaseException):
    """A kill -9 as the process sees it: nothing after it runs."""


class Mortal:
    """Counts outside effects and dies before or after the n-th."""

    def __init__(self, at: int, *, after: bool) -> None:
        self._left = at
        self._after = after

    def __call__(self, effect: Callable[[], object]) -> object:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        result = effect()
        if self._left == 0:
            raise Killed
        return result

    @property
    def survived(self) -> bool:
        return self._left > 0


class MortalStore:
    def __init__(self, inner: ControlStore, mortal: Mortal) -> None:
        self._inner = inner
        self._mortal = mortal

    def get(self, key: str) -> Record | None:
        return self._inner.get(key)

    def put(self, key: str, value: bytes, *, expected: int) -> int:
        version = self._mortal(lambda: self._inner.put(key, value, expected=expected))
        assert isinstance(version, int)
        return version


class MortalAudit(MemoryAudit):
    def __init__(self, mortal: Mortal) -> None:
        super().__init__()
        self.mortal: Mortal | None = mortal

    def append(self, **fields: Any) -> AuditEvent:
        effect = super().append
        if self.mortal is None:
            return effect(**fields)
        event = self.mortal(lambda: effect(**fields))
        assert isinstance(event, AuditEvent)
        return event


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_point_loses_no_count_and_no_step_and_repeats_no_act(after: bool) -> None:
    """The process dies at its n-th write or audit, for every n there is; a new one finishes the work."""
    point = 0
    while True:
        point += 1
        mortal = Mortal(point, after=after)
        inner = MemoryControlStore()
        audit = MortalAudit(mortal)
        world = World(store=inner, audit=audit)
        publish(world, parts=6)
        world.store = MortalStore(inner, mortal)
        with contextlib.suppress(Killed):
            ticks(world.service("actor"))
        world.store, audit.mortal = inner, None
        service = world.service("actor")
        ticks(service)
        state = service.state
        assert state.accounts.compared + state.window.rows + sum(state.accounts.set_aside.values()) == 1_200, point
        assert (state.loop.phase, state.alarms_total, state.outbox) == (Phase.IDLE, 1, ()), point
        assert read_routing(inner, USE_CASE).generation == 2, point
        assert len(world.acts.trained) == 1, point
        assert set(world.actions) == {
            "monitor.alarm.drift",
            *(f"monitor.loop.{step}" for step in ("alarm", "labels", "retrain", "gates", "promote", "redeploy")),
        }, point
        if mortal.survived:
            break
    assert point > 15
