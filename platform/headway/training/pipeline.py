"""One training from snapshot to registered version: snapshot, dataset, train, evaluate, gates, sign, register.

Nothing is signed before the gates hold, and nothing is registered as ready before it is signed. What fails a gate is
recorded with its measures, in the registry and in the audit log, and leaves the champion where it is. Each stage is
kept under the hash of what it was made of (`stages`), so that a run which was killed or failed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from headway.core.canonical import canonical, sha256
from headway.core.clock import Clock
from headway.core.errors import DefinitionError, HeadwayError
from headway.core.ids import uuid7
from headway.core.progress import Progress
from headway.core.routing import VersionRef
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.kernel import kernel_sha256
from headway.features.lake.pins import TrainingPins
from headway.features.lake.reader import LakeReader
from headway.governance.audit_event import AuditSink
from headway.governance.contract import LoadedContract
from headway.governance.registry import Registry
from headway.governance.signing import Signer
from headway.governance.statement import ModelStatement
from headway.training.definitions import TrainingJob
from headway.training.evaluate import Measure
from headway.training.gates.judge import Against
from headway.training.gates.results import GateReport
from headway.training.journal import RunRecord, read_run, unfinished
from headway.training.lock import require_locked
from headway.training.origin import code_sha256, describe_job
from headway.training.stage_cache import StageCache
from headway.training.stages import StageOutcome, Stages
from headway.training.steps_signed import Steps


@dataclass(frozen=True, kw_only=True)
class TrainedVersion:
    """A registered candidate."""

    ref: VersionRef
    metrics: Mapping[str, Measure]
    gates: GateReport
    statement: ModelStatement
    seconds: Mapping[str, float]
    """By stage."""
    cached: tuple[str, ...] = ()
    """Stages that were not made anew."""


def run(
    job: TrainingJob,
    *,
    settings: Settings,
    as_of: int,
    principal: Principal,
    registry: Registry,
    reader: LakeReader,
    signer: Signer,
    audit: AuditSink,
    clock: Clock,
    progress: Progress,
    contract: LoadedContract,
    pins: TrainingPins | None = None,
    against: Callable[[], Against] = Against,
    guard: Callable[[], None] = lambda: None,
    contract_now: Callable[[], LoadedContract] | None = None,
    lock_expected: str | None = None,
    requested_by: str = "",
) -> TrainedVersion:
    """Train on what was known at `as_of` (UTC microseconds) and register the version as @challenger.

    Stages whose inputs are those of an earlier run are taken from it; one that was registered is returned as it is.

    Args:
        job: What to train.
        settings: Where the stages are kept, and the project.
        as_of: Labels and features known by then.
        principal: Who reads and registers.
        registry: Where versions go.
        reader: Access to the lake.
        signer: Of model versions.
        audit: Told of the run and of each stage.
        clock: For all times.
        progress: Shows the stages.
        contract: As it was when the run began.
        pins: They hold the snapshots while it runs, and for the version for good.
        against: Asked, when the gates are held, for the champion and the verdicts of others.
        guard: Called before each stage; raises where this run may not go on.
        contract_now: Reads the signed contract again before signing.
        lock_expected: Hash of the lock that whoever asked for the training saw.
        requested_by: Subject who asked for it; the statement keeps it, since that one cannot approve the version.

    Raises:
        Forbidden: the principal lacks `train:<use case>`, `registry:write`, or may not read a source for its purpose.
        DefinitionError: the job and the contract speak of different feature services, or a gate cannot be measured.
        InvalidValue: a range has no rows, or labels of one class only.
        GateFailed: a gate does not hold; the candidate is recorded, not signed.
        Conflict: the contract changed meanwhile.
        ServiceFailed: more workers were lost than the recipe allows, or the packages are not as locked.
    """
    principal.require("train", job.use_case)
    promised = contract.contract.decision.feature_service
    if promised != job.service.name:
        raise DefinitionError(
            f"the contract decides with {promised!r}, the job trains {job.service.name!r}",
            field="job.service",
            expected=promised,
        )
    lock = require_locked(settings.project, lock_expected)
    root = cache_folder(settings, job.use_case)

    def record(outcome: str, resource: str, *refs: str, stage: str = "") -> None:
        audit.append(
            actor=principal.sub, kind=principal.kind, action=f"train.{stage}" if stage else "train", resource=resource,
            purpose=principal.purpose, outcome=outcome, refs=refs,
        )  # fmt: skip

    def told(outcome: StageOutcome) -> None:
        said = f"{outcome.outcome} in {outcome.seconds:.2f} s"
        record(said, f"use_case:{job.use_case}", outcome.inputs_sha256, stage=outcome.name)

    key = run_key(job, contract, lock)
    now, before = clock.now(), read_run(root)
    journal = unfinished(root, key, now, as_of) or RunRecord(run=uuid7(now), key=key, as_of=as_of, started=now)
    stages = Stages(
        cache=StageCache(root=root / "stages", clock=clock), progress=progress, clock=clock, record=told, guard=guard
    )
    steps = Steps(
        job=job, settings=settings, as_of=as_of, principal=principal, registry=registry, reader=reader, signer=signer,
        clock=clock, contract=contract, pins=pins, contract_now=contract_now, against=against,
        lock=lock, root=root, requested_by=requested_by, stages=stages,
        journal=msgspec.structs.replace(journal, reserving=False, reserved=""),
    )  # fmt: skip
    record("started", f"use_case:{job.use_case}", contract.sha256)
    steps.give_up_half_reserved(before)
    steps.begin()
    try:
        gated, report = steps.gated, steps.evidence.payload_sha256
        if not gated.report.passed:
            record("gates failed", f"model:{job.use_case}/{gated.failed_version}", contract.sha256, report)
            steps.finish()
            gated.report.require(f"{job.use_case} {gated.failed_version}")
        registered = steps.register()
    except BaseException:
        with suppress(HeadwayError):  # the error itself says more, and the audit log has the stages
            registry.record_stages(job.use_case, None, _facts(stages.outcomes), principal)
        raise
    with suppress(HeadwayError):  # the version is there; the audit log has the stages
        registry.record_stages(job.use_case, registered.run_id, _facts(stages.outcomes), principal)
    version = registered.ref.version
    record("registered", f"model:{job.use_case}/{version}", contract.sha256, registered.ref.statement_sha256, report)
    steps.finish()
    return TrainedVersion(
        ref=registered.ref,
        metrics=steps.measures,
        gates=gated.report,
        statement=registered.statement,
        seconds=stages.seconds,
        cached=tuple(outcome.name for outcome in stages.outcomes if outcome.cached),
    )


def cache_folder(settings: Settings, use_case: str) -> Path:
    """Return where a use case's stages and its journal are kept."""
    return settings.home / "training" / use_case


def run_key(job: TrainingJob, contract: LoadedContract, lock: str) -> str:
    """Return the hash of everything but the data that a training is made of."""
    return sha256(canonical([describe_job(job, 0), contract.sha256, kernel_sha256(job.service), code_sha256(), lock]))


def _facts(outcomes: list[StageOutcome]) -> dict[str, dict[str, object]]:
    return {
        outcome.name: {
            "inputs": outcome.inputs_sha256, "outcome": outcome.outcome, "seconds": outcome.seconds,
            "cached": outcome.cached,
        }
        for outcome in outcomes
    }  # fmt: skip
