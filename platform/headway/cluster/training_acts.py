"""What a training job does, in its own process: train a use case, or rebuild a version of it."""

from __future__ import annotations

import os

import msgspec

from headway.cluster.compose import Installation
from headway.cluster.model_card import keep_card
from headway.cluster.training_job import JobRequest, runtime_env
from headway.cluster.verdicts import verdicts
from headway.core import ray_session
from headway.core.progress import Progress
from headway.core.routing import read_routing
from headway.core.times import format_time
from headway.core.types import Principal
from headway.features.lake.pins import TrainingPins
from headway.governance.keys import MODEL_SIGN, signer_for
from headway.governance.statement import verify_version
from headway.models.artefact import read_definition
from headway.training.gates.judge import Against
from headway.training.journal import unfinished
from headway.training.lock import require_locked
from headway.training.pipeline import TrainedVersion, cache_folder, run_key
from headway.training.pipeline import run as run_pipeline
from headway.training.reproduce import Reproduction, reproduce
from headway.training.turn import turn


def act(at: Installation, request: JobRequest, progress: Progress) -> bytes:
    """Do what is asked, as the job of the request; return the result as JSON."""
    require_locked(at.settings.project, request.lock_sha256)
    ray_session.connect(at.settings, runtime_env(request))
    if request.act == "reproduce":
        return msgspec.json.encode(reproduce_here(at, request, progress))
    return msgspec.json.encode(train_here(at, request, progress))


def reproduce_here(at: Installation, request: JobRequest, progress: Progress) -> Reproduction:
    """Rebuild a registered version in this process; its statement is verified first, and the verdict audited."""
    use_case, worker = request.use_case, trainer(at, request.use_case)
    found = at.registry.resolve(use_case, request.version, worker)
    statement = verify_version(
        found.path, at.trust, name=use_case, version=found.version, clock=at.clock,
        statement_sha256=found.statement_sha256,
    )  # fmt: skip
    result = reproduce(
        at.job(use_case), statement, read_definition(found.path, statement), settings=at.settings, reader=at.reader,
        principal=worker, progress=progress,
    )  # fmt: skip
    at.audit.append(
        actor=request.asked_by,
        kind=worker.kind,
        action="models.reproduce",
        resource=f"model:{use_case}/{found.version}",
        purpose=worker.purpose,
        outcome="reproduced" if result.reproduced else f"differs: {', '.join(result.differing)}"[:500],
        refs=(found.statement_sha256,),
    )
    return result


def train_here(at: Installation, request: JobRequest, progress: Progress) -> TrainedVersion:
    """Train in this process, in the use case's turn."""
    use_case = request.use_case
    job, contract, now = at.job(use_case), at.contract(use_case), at.clock.now()
    holder = f"{request.asked_by} (process {os.getpid()}, since {format_time(now)})"
    with (
        turn(at.control, use_case, holder=holder, clock=at.clock) as guard,
        TrainingPins(at.committer, at.clock) as pins,
    ):
        as_of = request.as_of
        if as_of is None:
            key = run_key(job, contract, request.lock_sha256)
            stopped = unfinished(cache_folder(at.settings, use_case), key, now)
            as_of = now if stopped is None else stopped.as_of
        trained = run_pipeline(
            job,
            settings=at.settings,
            as_of=as_of,
            principal=trainer(at, use_case),
            registry=at.registry,
            reader=at.reader,
            signer=signer_for(at.settings, MODEL_SIGN),
            audit=at.audit,
            clock=at.clock,
            progress=progress,
            contract=contract,
            pins=pins,
            against=lambda: Against(
                champion=read_routing(at.control, use_case).champion,
                without_champion=request.without_champion,
                verdicts=verdicts(at, job),
            ),
            guard=guard,
            contract_now=lambda: at.contract(use_case),
            lock_expected=request.lock_sha256,
            requested_by=request.asked_by,
        )
    keep_card(at, use_case, trained.ref, trainer(at, use_case), progress)
    return trained


def trainer(at: Installation, use_case: str) -> Principal:
    """Return the identity that training runs under: whoever asks needs `train`, only this one reads the data."""
    scopes = [f"train:{use_case}", "data:read", "registry:read", "registry:write"]
    return at.workload("headway-training", scopes, "model_training")
