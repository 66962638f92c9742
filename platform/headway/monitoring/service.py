"""The monitor itself: one `tick` reads counts, judges full windows, and moves the loop by at most one act.

It is a plain object; `monitoring.actor` gives it a process. Whoever calls it must be ready for LeaseLost: then another
monitor has taken over, and this one may do nothing any more.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

import msgspec

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.counts import CountsChannel
from headway.core.lease import DURATION, Lease, LeaseLost
from headway.core.routing import read_routing
from headway.governance.audit_event import AuditSink
from headway.monitoring.acts import Continue, Ports, Run, ThreadRunner, act_of
from headway.monitoring.alarms import Alarm
from headway.monitoring.budget import DriftBudget, RetrainPolicy
from headway.monitoring.definitions import Monitor
from headway.monitoring.loop import LoopState, Phase, Step, Transition, on_alarm, on_error, on_superseded, pending
from headway.monitoring.reference import Reference, ReferenceSource
from headway.monitoring.state import MonitorState, StateStore
from headway.monitoring.window import fold, follow


@dataclass(frozen=True, kw_only=True)
class MonitorParts:
    """What a monitor is made of; built by the composition root, in the actor's own process."""

    monitor: Monitor
    budget: DriftBudget
    policy: RetrainPolicy
    store: ControlStore
    channel: CountsChannel
    references: ReferenceSource
    ports: Ports
    audit: AuditSink
    clock: Clock
    actor: str = "headway-monitor"
    """Identity in the audit log."""
    purpose: str = "monitoring"
    lease: int = DURATION
    """Microseconds."""


class MonitorService:
    """One monitor under one lease."""

    def __init__(self, parts: MonitorParts, *, holder: str, run: Run | None = None) -> None:
        """Take the lease and the state; Conflict while another holder is alive."""
        self._parts = parts
        self._use_case = parts.monitor.use_case
        self._run = run or ThreadRunner()
        self._lease = Lease(
            parts.store, f"monitor:{self._use_case}", holder=holder, clock=parts.clock, duration=parts.lease
        )
        epoch = self._lease.acquire()
        self._states = StateStore(parts.store, self._use_case, epoch)
        self._state = self._states.open()
        self._reference: Reference | None = None
        self._running: Future[Continue] | None = None
        self._flush()

    @property
    def state(self) -> MonitorState:
        """The state as last saved."""
        return self._state

    def tick(self) -> int:
        """Do what there is to do; return the number of deltas read, so that a backlog is worked off without waiting."""
        self._lease.keep()
        read = self._count()
        self._collect()
        self._advance()
        return read

    def close(self) -> None:
        """Let a successor in at once; an act still running is repeated by it."""
        self._lease.release()

    def _count(self) -> int:
        deltas, cursor = self._parts.channel.read(self._use_case, self._state.cursor)
        # The routing is read after the counts: a replica counts for a version only once the routing names it.
        champion = read_routing(self._parts.store, self._use_case).champion
        if champion is None:
            self._reference = None
        elif self._reference is None or self._reference.version != champion.version:
            self._reference = self._parts.references(champion)
        state = follow(self._state, self._reference)
        steps: list[Step] = []
        for delta in deltas:
            folded = fold(
                state, delta, reference=self._reference, monitor=self._parts.monitor, budget=self._parts.budget
            )
            state = folded.state
            if folded.alarm is not None:
                state, answered = self._answer(state, folded.alarm)
                steps.extend(answered)
        self._save(msgspec.structs.replace(state, cursor=cursor), steps)
        return len(deltas)

    def _answer(self, state: MonitorState, alarm: Alarm) -> tuple[MonitorState, list[Step]]:
        raised = Step(
            action=f"alarm.{alarm.kind}",
            outcome=f"raised: {', '.join(alarm.features[:5])}",
            refs=(alarm.id, state.profile_sha256),
        )
        answer = on_alarm(state.loop, alarm, self._parts.policy, retrain=self._parts.monitor.retrain)
        return msgspec.structs.replace(state, loop=answer.state), [raised, *answer.steps]

    def _collect(self) -> None:
        """Apply the outcome of an act that has ended."""
        if self._running is None or not self._running.done():
            return
        running, self._running = self._running, None
        error = running.exception()
        if error is None:
            self._apply(running.result()(self._state.loop))
        elif isinstance(error, LeaseLost) or not isinstance(error, Exception):
            raise error
        else:
            self._apply(on_error(self._state.loop, error, self._parts.clock.now()))

    def _advance(self) -> None:
        """Start the act that is due. Its intent was saved under our epoch, so that no other monitor starts it too."""
        loop = self._state.loop
        if self._running is not None or pending(loop, self._parts.clock.now()) is None:
            return
        if self._overtaken(loop):
            champion = read_routing(self._parts.store, self._use_case).champion
            self._apply(on_superseded(loop, champion.version if champion else ""))
            return
        self._states.save(self._state)
        name = f"{loop.request.episode if loop.request else ''}:{loop.phase}"
        self._running = self._run(name, act_of(loop, self._parts.ports, self._parts.policy))

    def _overtaken(self, loop: LoopState) -> bool:
        """Whether somebody else moved the champion since the alarm."""
        if loop.phase is Phase.REDEPLOY or loop.request is None:
            return False
        ours = {loop.request.replaces, loop.candidate.version.version if loop.candidate else ""}
        champion = read_routing(self._parts.store, self._use_case).champion
        return champion is None or champion.version not in ours

    def _apply(self, transition: Transition) -> None:
        self._save(msgspec.structs.replace(self._state, loop=transition.state), transition.steps)

    def _save(self, state: MonitorState, steps: tuple[Step, ...] | list[Step] = ()) -> None:
        if state == self._state and not steps and not state.outbox:
            return
        self._state = self._states.save(msgspec.structs.replace(state, outbox=(*state.outbox, *steps)))
        self._flush()

    def _flush(self) -> None:
        """Audit what the outbox holds, then clear it; a kill in between leaves a step twice in the log, never none."""
        if not self._state.outbox:
            return
        for step in self._state.outbox:
            self._parts.audit.append(
                actor=self._parts.actor,
                kind="workload",
                action=f"monitor.{step.action}",
                resource=self._use_case,
                purpose=self._parts.purpose,
                outcome=step.outcome,
                refs=step.refs,
            )
        self._state = self._states.save(msgspec.structs.replace(self._state, outbox=()))
