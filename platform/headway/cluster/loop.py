"""Wires the monitoring loop: what an alarm may do in training, registry and serving, under identities of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headway.cluster.compose import Installation
from headway.cluster.deploy import deploy
from headway.cluster.training import make_champion, train
from headway.cluster.training_acts import trainer
from headway.core import ray_session
from headway.core.counts import RedisCountsChannel
from headway.core.errors import ServiceFailed
from headway.core.ports import Candidate, RetrainRequest
from headway.core.progress import RecordedProgress
from headway.core.routing import VersionRef, read_routing
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Principal
from headway.features.distinct import first_known
from headway.governance.statement import verify_version
from headway.models.artefact import read_definition
from headway.monitoring.actor import start_monitor, stop_monitor
from headway.monitoring.acts import Ports
from headway.monitoring.budget import drift_budget, retrain_policy
from headway.monitoring.definitions import Monitor
from headway.monitoring.reference import VerifiedReferences
from headway.monitoring.service import MonitorParts
from headway.monitoring.state import reset_state

PURPOSE = "monitoring"
_EPISODE = "loop:{use_case}:episode:{episode}"


def monitor_parts(use_case: str) -> MonitorParts:
    """Return what the use case's monitor is made of; runs in the monitor's own process."""
    at = Installation.running(writer=f"monitor-{use_case}")
    contract = at.contract(use_case).contract
    acts = LoopActs(at, use_case)
    return MonitorParts(
        monitor=at.project.one("monitoring", use_case, Monitor),
        budget=drift_budget(contract),
        policy=retrain_policy(contract),
        store=at.control,
        channel=RedisCountsChannel(at.settings.redis_control_url),
        references=VerifiedReferences(use_case, at.trust, at.clock),
        ports=Ports(new_labels=acts.new_labels, retrain=acts.retrain, promote=acts.promote, redeploy=acts.redeploy),
        audit=at.audit,
        clock=at.clock,
        actor=f"headway-monitor-{use_case}",
        purpose=PURPOSE,
    )


def watch(at: Installation, use_case: str, principal: Principal) -> None:
    """Start the use case's monitor in place of a running one; its state in the control store goes on."""
    principal.require("monitor", at.project.require(use_case))
    start_monitor(use_case, monitor_parts)
    at.audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action="monitor.start",
        resource=use_case,
        purpose=principal.purpose,
        outcome="done",
    )


class LoopActs:
    """The four acts of the loop; each may be repeated after a crash and is then the same act."""

    def __init__(self, at: Installation, use_case: str) -> None:
        self._at = at
        self._use_case = use_case

    def _identity(self) -> Principal:
        scopes = [f"{verb}:{self._use_case}" for verb in ("train", "rollout", "deploy", "monitor")]
        return self._at.workload(f"headway-loop-{self._use_case}", scopes, PURPOSE)

    def new_labels(self, use_case: str, version: str, as_of: int) -> int:
        """Count labels that became known after the version was trained, by `as_of`; one that came again is not new."""
        at = self._at
        trained = self._trained_as_of(version)
        worker, spine = trainer(at, use_case), at.job(use_case).spine
        columns = [spine.id, KNOWN_TIME, EVENT_TIME]
        rows = at.reader.scan(spine, worker, worker.purpose, columns=columns, known_by=as_of)
        return int((first_known(rows, spine.id)[KNOWN_TIME].to_numpy() > trained).sum())

    def retrain(self, request: RetrainRequest) -> Candidate:
        """Train on the newest snapshot, once per episode."""
        at = self._at
        key = _EPISODE.format(use_case=request.use_case, episode=request.episode)
        record = at.control.get(key)
        if record is None:
            trained = train(at, request.use_case, self._identity(), RecordedProgress(), as_of=request.as_of)
            candidate = Candidate(
                version=trained.ref,
                gates=tuple(str(result) for result in trained.gates.results),
                refs=(trained.ref.statement_sha256,),
            )
            at.control.put(key, msgspec.json.encode(candidate), expected=0)
            return candidate
        return msgspec.json.decode(record.value, type=Candidate)

    def promote(self, use_case: str, candidate: Candidate, *, episode: str, reason: str) -> int:
        """Make the candidate the champion."""
        return make_champion(
            self._at, use_case, candidate.version, self._identity(), f"{reason} (episode {episode})"
        ).generation

    def redeploy(self, use_case: str, generation: int, *, episode: str) -> None:
        """Roll new replicas out; they load what the routing record names."""
        del episode  # a second rollout of the same routing changes nothing that serves
        current = read_routing(self._at.control, use_case).generation
        if current < generation:
            raise ServiceFailed(f"the routing record of {use_case} is at generation {current}, not {generation}")
        deploy(self._at, use_case, self._identity(), RecordedProgress())

    def _trained_as_of(self, version: str) -> int:
        routing = read_routing(self._at.control, self._use_case)
        for ref in (routing.champion, routing.previous):
            if ref is not None and ref.version == version:
                return _as_of(self._at, self._use_case, ref)
        return 0


def _as_of(at: Installation, use_case: str, ref: VersionRef) -> int:
    folder = Path(ref.path)
    statement = verify_version(
        folder, at.trust, name=use_case, version=ref.version, clock=at.clock, statement_sha256=ref.statement_sha256
    )
    return int(read_definition(folder, statement)["as_of"])


def rewind(at: Installation, use_case: str) -> None:
    """Take a use case's live state back to an empty online store and a fresh monitor, for a replay from its start.

    The lake, the audit log and the registry stay; the monitor keeps its place in the stream of counts.
    """
    ray_session.connect(at.settings)
    stop_monitor(use_case)
    reset_state(at.control, use_case)
    for view in at.views(use_case):
        at.online.clear(view)
