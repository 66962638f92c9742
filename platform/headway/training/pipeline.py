"""One training from snapshot to registered version: snapshot, dataset, train, evaluate, gates, sign, register.

Nothing is signed before the gates hold, and nothing is registered as ready before it is signed. What fails a gate is
recorded with its measures, in the registry and in the audit log, and leaves the champion where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from headway.core.clock import Clock
from headway.core.errors import DefinitionError
from headway.core.ids import uuid7
from headway.core.progress import Progress, Stage
from headway.core.routing import VersionRef
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.lake.pins import TrainingPins
from headway.features.lake.reader import LakeReader
from headway.features.profile import build_profile
from headway.governance.audit_event import AuditSink
from headway.governance.contract import LoadedContract
from headway.governance.keys import trust_root
from headway.governance.registry import Registry
from headway.governance.signing import Signer
from headway.governance.statement import ModelStatement
from headway.training.dataset import build, pin_snapshots
from headway.training.definitions import TrainingJob
from headway.training.evaluate import Measure
from headway.training.gates.document import sign_report
from headway.training.gates.judge import Against, judge, measure, rows_of
from headway.training.gates.poisoning import labelled_rows
from headway.training.gates.results import GateReport
from headway.training.publish import Candidate, record_failure, register_candidate, sign_candidate, write_candidate
from headway.training.recipes.xgboost import fit


@dataclass(frozen=True, kw_only=True)
class TrainedVersion:
    """A registered candidate."""

    ref: VersionRef
    metrics: Mapping[str, Measure]
    gates: GateReport
    statement: ModelStatement
    seconds: Mapping[str, float]
    """By stage."""


@dataclass(kw_only=True)
class _Stages:
    """Shows stages and keeps their seconds."""

    progress: Progress
    clock: Clock
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[Stage]:
        start = self.clock.monotonic()
        with self.progress.stage(name) as stage:
            yield stage
        self.seconds[name] = self.clock.monotonic() - start


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
    against: Against | None = None,
) -> TrainedVersion:
    """Train on what was known at `as_of` (UTC microseconds) and register the version as @challenger.

    `pins` hold the snapshots while it runs, and for the version for good. The candidate is held `against` the champion
    and the verdicts of others.

    Raises:
        Forbidden: the principal lacks `train:<use case>`, `registry:write`, or may not read a source for its purpose.
        DefinitionError: the job and the contract speak of different feature services, or a gate cannot be measured.
        InvalidValue: a range has no rows, or labels of one class only.
        GateFailed: the candidate is below a floor; it is recorded, not signed.
        ServiceFailed: more workers were lost than the recipe allows.
    """
    principal.require("train", job.use_case)
    promised = contract.contract.decision.feature_service
    if promised != job.service.name:
        raise DefinitionError(
            f"the contract decides with {promised!r}, the job trains {job.service.name!r}",
            field="job.service",
            expected=promised,
        )
    stages = _Stages(progress=progress, clock=clock)
    run_name = f"{job.use_case}-{uuid7(clock.now())}"

    def record(outcome: str, resource: str, *refs: str) -> None:
        audit.append(
            actor=principal.sub, kind=principal.kind, action="train", resource=resource, purpose=principal.purpose,
            outcome=outcome, refs=refs,
        )  # fmt: skip

    record("started", f"use_case:{job.use_case}", contract.sha256)
    with stages("snapshot") as stage:
        snapshots = pin_snapshots(job, reader, pins, run_name)
        stage.note(", ".join(snapshots))
    with stages("dataset") as stage:
        data = build(job, reader, as_of=as_of, principal=principal, snapshots=snapshots)
        stage.note(f"{data.rows:,} rows to train, {data.evaluation_rows:,} to evaluate")
    with stages("train") as stage:
        fitted = fit(
            job.recipe, data.train(), features=job.service.features, label=job.label, seed=job.seed,
            run_name=run_name, storage=settings.home / "training" / "checkpoints",
        )  # fmt: skip
        stage.note(fitted.summary())
    with stages("evaluate") as stage:
        rows, evaluation, labelled = data.rows, data.evaluation(), labelled_rows(data.blocks(), job)
        del data  # gives the object store back
        scores = fitted.predict(evaluation.matrix)
        judged = rows_of(job, evaluation, scores)
        measures = measure(judged)
        stage.note(", ".join(f"{name} {measure.value:.3f}" for name, measure in measures.items()))
    with stages("gates") as stage:
        gates = judge(
            job, evaluation, judged, measures, fitted=fitted, labelled=labelled, against=against or Against(),
            contract=contract, as_of=as_of, snapshots=snapshots, trust=trust_root(settings), clock=clock,
        )  # fmt: skip
        evidence = sign_report(gates, signer)
        candidate = Candidate(
            job=job, as_of=as_of, fitted=fitted, sample=evaluation.matrix, schema=evaluation.schema,
            profile=build_profile(evaluation.matrix, list(job.service.features), scores), measures=measures,
            gates=gates, evidence=evidence, snapshots=snapshots, rows=rows,
        )  # fmt: skip
        stage.note(f"{sum(result.passed for result in gates.results)} of {len(gates.results)} hold")
        if not gates.passed:
            version = record_failure(candidate, registry=registry, principal=principal)
            record("gates failed", f"model:{job.use_case}/{version}", contract.sha256, evidence.payload_sha256)
            gates.require(f"{job.use_case} {version}")
    with stages("sign") as stage:
        folder = settings.home / "training" / run_name
        reports, memory = write_candidate(candidate, folder, clock)
        stage.note(", ".join(f"{r.name} {r.cost:.0f} µs" for r in reports) + f": {reports[0].name} serves")
        run_id, version = registry.reserve(job.use_case, principal)
        try:
            statement = sign_candidate(
                candidate, folder, version=version, run_id=run_id, backend=reports[0].name, memory=memory,
                settings=settings, contract=contract, signer=signer, clock=clock,
            )  # fmt: skip
        except BaseException:
            registry.abandon(job.use_case, version, principal, metrics=candidate.values())
            raise
    with stages("register") as stage:
        _keep(pins, candidate, version)
        registered = register_candidate(candidate, folder, statement, reports, registry=registry, principal=principal)
        stage.note(f"version {registered.version} is @challenger")
    record(
        "registered", f"model:{job.use_case}/{version}", contract.sha256, registered.statement_sha256,
        evidence.payload_sha256,
    )  # fmt: skip
    return TrainedVersion(
        ref=VersionRef(version=version, path=str(registered.path), statement_sha256=registered.statement_sha256),
        metrics=measures,
        gates=gates,
        statement=statement,
        seconds=stages.seconds,
    )


def _keep(pins: TrainingPins | None, candidate: Candidate, version: str) -> None:
    """Pin what the version was trained on before the version is there."""
    if pins is not None:
        pins.keep(candidate.job.use_case, version, candidate.snapshots)
