"""Trains a use case as its job says, and moves a version that passed its gates into service."""

from __future__ import annotations

from contextlib import suppress

from headway.cluster.compose import Installation
from headway.cluster.verdicts import verdicts
from headway.core import ray_session
from headway.core.errors import HeadwayError
from headway.core.progress import Progress
from headway.core.routing import Routing, VersionRef, promote, read_routing
from headway.core.types import Principal
from headway.features.lake.pins import TrainingPins
from headway.governance.keys import MODEL_SIGN, signer_for
from headway.training.gates.judge import Against
from headway.training.pipeline import TrainedVersion
from headway.training.pipeline import run as run_pipeline


def train(
    at: Installation, use_case: str, principal: Principal, progress: Progress, *, as_of: int, without_champion: str = ""
) -> TrainedVersion:
    """Run the pipeline on what was known at `as_of` (UTC microseconds) and return the signed, registered candidate.

    Raises GateFailed where a gate does not hold; the run is kept with the reason. `without_champion` says why the
    candidate is not held against the version that serves; the report tells it.
    """
    principal.require("train", at.project.require(use_case))
    contract = at.contract(use_case)
    job, worker = at.job(use_case), trainer(at, use_case)
    ray_session.connect(at.settings)
    with TrainingPins(at.committer, at.clock) as pins:
        return run_pipeline(
            job,
            settings=at.settings,
            as_of=as_of,
            principal=worker,
            registry=at.registry,
            reader=at.reader,
            signer=signer_for(at.settings, MODEL_SIGN),
            audit=at.audit,
            clock=at.clock,
            progress=progress,
            contract=contract,
            pins=pins,
            against=Against(
                champion=read_routing(at.control, use_case).champion,
                without_champion=without_champion,
                verdicts=verdicts(at, job),
            ),
        )


def trainer(at: Installation, use_case: str) -> Principal:
    """Return the identity that training runs under: whoever asks needs `train`, only this one reads the data."""
    scopes = [f"train:{use_case}", "data:read", "registry:read", "registry:write"]
    return at.workload("headway-training", scopes, "model_training")


def make_champion(at: Installation, use_case: str, ref: VersionRef, principal: Principal, reason: str) -> Routing:
    """Write the routing record, then let the registry's aliases follow it.

    The audit log tells of the promotion before it is made and after, so that nothing is promoted which it cannot hold.
    """
    principal.require("rollout", use_case)

    def record(outcome: str) -> None:
        at.audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action="rollout.promote",
            resource=f"{use_case}/{ref.version}",
            purpose=principal.purpose,
            outcome=outcome,
            refs=(ref.statement_sha256,),
        )

    before = read_routing(at.control, use_case)
    worker = trainer(at, use_case)
    record("intended")
    try:
        routing = promote(at.control, use_case, ref, reason=reason, by=principal.sub, now=at.clock.now())
    except BaseException:
        with suppress(HeadwayError):  # why it failed says more
            record("failed")
        raise
    record(f"generation {routing.generation}")
    at.registry.alias(use_case, "champion", ref.version, worker)
    if before.champion is not None and before.champion != ref:
        at.registry.alias(use_case, "previous", before.champion.version, worker)
    return routing
