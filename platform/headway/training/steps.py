"""The stages of a training: what each is made of and how; what is kept is loaded only when it is needed."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from headway.core.clock import Clock
from headway.core.errors import Conflict, NotFound, ServiceFailed
from headway.core.progress import Stage
from headway.core.routing import VersionRef
from headway.core.settings import Settings
from headway.core.types import Matrix, Principal
from headway.features.kernel import kernel_sha256
from headway.features.lake.pins import TrainingPins
from headway.features.lake.reader import LakeReader
from headway.features.profile import build_profile
from headway.governance.contract import LoadedContract
from headway.governance.registry import Registry
from headway.governance.signing import Signer
from headway.governance.statement import ModelStatement
from headway.models.compute import cost_note
from headway.models.parity import BackendReport
from headway.training import stored_dataset, stored_fit
from headway.training.audit import audit_training
from headway.training.dataset import Evaluation, TrainingData, build, pin_snapshots
from headway.training.definitions import TrainingJob
from headway.training.evaluate import Measure, evaluate
from headway.training.fitted import Fitted
from headway.training.gates import GateReport, check_gates
from headway.training.journal import RunRecord, write_run
from headway.training.origin import code_sha256, describe_job, git_sha
from headway.training.publish import Candidate, record_failure, register_candidate, sign_candidate, write_candidate
from headway.training.recipes.fitting import fit
from headway.training.stage_cache import Kept
from headway.training.stages import Stages

_VERSION = "version"
_DATASET = ("use_case", "as_of", "spine", "label", "label_delay", "train", "evaluate", "group", "service")
"""What of a described job decides its rows."""


class Gated(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates said."""

    report: GateReport
    failed_version: str = ""
    """Under which the measures of a candidate below a floor are kept."""


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A signed candidate that the registry does not hold yet."""

    run_id: str
    version: str
    reports: tuple[BackendReport, ...]
    statement: ModelStatement


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is there."""

    run_id: str
    ref: VersionRef
    statement: ModelStatement


@dataclass(kw_only=True)
class Steps:
    """One run's stages; each method is one, and asks for those before it."""

    job: TrainingJob
    settings: Settings
    as_of: int
    principal: Principal
    registry: Registry
    reader: LakeReader
    signer: Signer
    clock: Clock
    contract: LoadedContract
    pins: TrainingPins | None
    contract_now: Callable[[], LoadedContract] | None
    lock: str
    root: Path
    journal: RunRecord
    stages: Stages
    requested_by: str = ""

    # --- snapshot

    @cached_property
    def snapshots(self) -> Mapping[str, int]:
        """Pin the newest snapshots; a run that goes on keeps those it began with while they are there."""
        inputs = {"run": self.journal.run, "as_of": self.as_of, "service": self.job.service.name}
        held: dict[str, int] = {}

        def make(folder: Path, _: Stage) -> str:
            held.update(pin_snapshots(self.job, self.reader, self.pins, self.journal.run))
            (folder / "snapshots.json").write_bytes(msgspec.json.encode(held))
            return ", ".join(held)

        def still(kept: Kept) -> bool:
            found = msgspec.json.decode((kept.folder / "snapshots.json").read_bytes(), type=dict[str, int])
            return self._hold(found)

        kept = self.stages.run("snapshot", inputs, make, still=still)
        return msgspec.json.decode((kept.folder / "snapshots.json").read_bytes(), type=dict[str, int])

    def _hold(self, snapshots: dict[str, int]) -> bool:
        """Pin the snapshots that an earlier part of this run took; False where one is gone."""
        if self.pins is None:
            return True
        try:
            self.pins.hold_newest(self.journal.run, lambda: snapshots)
        except NotFound:
            return False
        return True

    # --- dataset

    @cached_property
    def rows_kept(self) -> Kept:
        """Join labels and features, and keep the rows."""
        described = describe_job(self.job, self.as_of)
        inputs = {
            **{name: described[name] for name in _DATASET},
            "audited": [
                self.job.leak_bound,
                *(getattr(self.job.recipe, name, None) for name in ("weight", "regression")),
            ],
            "snapshots": dict(self.snapshots),
            "kernel": kernel_sha256(self.job.service),
            **self._made_by,
        }

        def make(folder: Path, _: Stage) -> str:
            data = build(self.job, self.reader, as_of=self.as_of, principal=self.principal, snapshots=self.snapshots)
            stored_dataset.store(data, folder)
            said = (f"{data.rows:,} rows to train, {data.evaluation_rows:,} to evaluate",)
            return "; ".join(said + audit_training(data, self.reader, self.principal, as_of=self.as_of))

        return self.stages.run("dataset", inputs, make)

    @cached_property
    def data(self) -> TrainingData:
        """Return the rows."""
        return stored_dataset.load(self.rows_kept.folder, self.job, self.snapshots)

    @cached_property
    def evaluation(self) -> Evaluation:
        """Return the evaluation rows."""
        found = self.data.evaluation()
        del self.data  # gives the object store back
        return found

    # --- train

    @cached_property
    def fitted_kept(self) -> Kept:
        """Fit the recipe, and keep the model's files."""
        described = describe_job(self.job, self.as_of)
        inputs = {
            "dataset": self.rows_kept.folder.name,
            **{name: described[name] for name in ("recipe", "seed", "label")},
            "features": list(self.job.service.features),
            **self._made_by,
        }
        storage = self.settings.home / "training" / "checkpoints"
        run_name = f"{self.job.use_case}-{self.stages.cache.key('train', inputs)[:16]}"

        def make(folder: Path, stage: Stage) -> str:
            resumed = (storage / run_name).exists()
            if resumed:
                stage.note("goes on from the checkpoints of a run that was stopped")
            try:
                fitted = fit_rows(self.data, self.job, self.settings.project, self.as_of, run_name, storage)
            except ServiceFailed:
                if not resumed:
                    raise
                stage.note("they cannot be used: trained from the beginning")
                shutil.rmtree(storage / run_name, ignore_errors=True)
                fitted = fit_rows(self.data, self.job, self.settings.project, self.as_of, run_name, storage)
            stored_fit.store(fitted, folder)
            return fitted.summary()

        return self.stages.run("train", inputs, make)

    @cached_property
    def fitted(self) -> Fitted:
        """Return the model."""
        return stored_fit.load(self.fitted_kept.folder)

    @cached_property
    def scores(self) -> Matrix:
        """Return the model's scores of the evaluation rows."""
        return self.fitted.predict(self.evaluation.matrix)

    # --- evaluate, gates

    @cached_property
    def evaluated_kept(self) -> Kept:
        """Measure the model on the evaluation rows."""
        inputs = {"train": self.fitted_kept.folder.name, "seed": self.job.seed, "group": self.job.group}

        def make(folder: Path, _: Stage) -> str:
            rows = self.evaluation
            measures = evaluate(
                rows.label, self.scores, event_time=rows.event_time, group=rows.group, seed=self.job.seed
            )
            (folder / "measures.json").write_bytes(msgspec.json.encode(measures))
            return ", ".join(f"{name} {measure.value:.3f}" for name, measure in measures.items())

        return self.stages.run("evaluate", inputs, make)

    @cached_property
    def measures(self) -> Mapping[str, Measure]:
        """Return the measures."""
        return msgspec.json.decode((self.evaluated_kept.folder / "measures.json").read_bytes(), type=dict[str, Measure])

    @cached_property
    def gated_kept(self) -> Kept:
        """Hold the measures against contract and job; what is below a floor is recorded once."""
        inputs = {
            "evaluate": self.evaluated_kept.folder.name,
            "gates": describe_job(self.job, self.as_of)["gates"],
            "contract": self.contract.sha256,
        }

        def make(folder: Path, _: Stage) -> str:
            floors = [(clause.metric, clause.floor) for clause in self.contract.contract.accuracy]
            report = check_gates(self.measures, job=self.job.gates, contract=floors)
            failed = ""
            if not report.passed:
                failed = record_failure(self.candidate(report), registry=self.registry, principal=self.principal)
            (folder / "gates.json").write_bytes(msgspec.json.encode(Gated(report=report, failed_version=failed)))
            return f"{sum(result.passed for result in report.results)} of {len(report.results)} hold"

        return self.stages.run("gates", inputs, make)

    @cached_property
    def gated(self) -> Gated:
        """Return what the gates said."""
        return msgspec.json.decode((self.gated_kept.folder / "gates.json").read_bytes(), type=Gated)

    def candidate(self, gates: GateReport) -> Candidate:
        """Return all that is known of the model."""
        rows, facts = self.evaluation, stored_dataset.facts_of(self.rows_kept.folder)
        return Candidate(
            job=self.job, as_of=self.as_of, fitted=self.fitted, sample=rows.matrix, schema=rows.schema,
            profile=build_profile(rows.matrix, list(self.job.service.features), self.scores),
            measures=self.measures, gates=gates, snapshots=self.snapshots, rows=facts.rows,
            origin={
                "dataset_sha256": facts.sha256, "world_size": world_size(self.job), "code_sha256": code_sha256(),
            },
        )  # fmt: skip

    # --- sign, register

    def register(self) -> Registered:
        """Sign and register the candidate; one that was registered of the same inputs is returned."""
        sign = {
            "gates": self.gated_kept.folder.name,
            "definition": describe_job(self.job, self.as_of),
            "git": git_sha(self.settings.project),
            "signer": self.signer.key_id,
            **self._made_by,
        }
        cache = self.stages.cache
        inputs = {"sign": cache.key("sign", sign)}
        done, _ = cache.find("register", cache.key("register", inputs))
        if done is not None and self._there(done):
            self.stages.skip("sign", inputs["sign"])
            return _registered(self.stages.run("register", inputs, _nothing))
        signed = self.stages.run("sign", sign, self._sign, still=self._signed_holds)

        def make(folder: Path, _: Stage) -> str:
            found = self._fill(signed.folder)
            (folder / "registered.json").write_bytes(msgspec.json.encode(found))
            return f"version {found.ref.version} is @challenger"

        registered = self.stages.run("register", inputs, make, still=self._there)
        cache.drop("sign", signed.folder.name)  # the registry holds the files now
        return _registered(registered)

    def _sign(self, folder: Path, _: Stage) -> str:
        candidate, version_folder = self.candidate(self.gated.report), folder / _VERSION
        reports, memory = write_candidate(candidate, version_folder, self.clock)
        self._require_same_contract()
        self._write(reserving=True)
        run_id, version = self.registry.reserve(self.job.use_case, self.principal)
        self._write(reserving=False, reserved=version)
        try:
            statement = sign_candidate(
                candidate, version_folder, version=version, run_id=run_id, backend=reports[0].name, memory=memory,
                settings=self.settings, contract=self.contract, signer=self.signer, clock=self.clock,
                requested_by=self.requested_by,
            )  # fmt: skip
        except BaseException:
            self.registry.abandon(self.job.use_case, version, self.principal, metrics=candidate.values())
            self._write(reserved="")
            raise
        signed = Signed(run_id=run_id, version=version, reports=reports, statement=statement)
        (folder / "signed.json").write_bytes(msgspec.json.encode(signed))
        return cost_note(reports, memory, self.contract.contract.tier)

    def _require_same_contract(self) -> None:
        """Refuse to sign for a contract that is not the one that the run began with."""
        if self.contract_now is None:
            return
        now = self.contract_now()
        if now.sha256 != self.contract.sha256:
            raise Conflict(
                f"the contract of {self.job.use_case} changed while the model was trained: it began under "
                f"{self.contract.sha256[:12]}, signed off now is {now.sha256[:12]}",
                hint="train again: what does not depend on the contract is kept",
            )

    def _signed_holds(self, kept: Kept) -> bool:
        """Whether a signed candidate can still be registered: its version is reserved, and it has not expired."""
        signed = _signed(kept.folder)
        states = {item.version: item for item in self.registry.versions(self.job.use_case, self.principal)}
        found = states.get(signed.version)
        waits = found is not None and found.run_id == signed.run_id and found.state in ("reserved", "ready")
        return waits and signed.statement.expires > self.clock.now()

    def _fill(self, folder: Path) -> Registered:
        signed = _signed(folder)
        if self.pins is not None:  # pinned before the version is there
            self.pins.keep(self.job.use_case, signed.version, self.snapshots)
        found = register_candidate(
            self.candidate(self.gated.report), folder / _VERSION, signed.statement, signed.reports,
            registry=self.registry, principal=self.principal,
        )  # fmt: skip
        ref = VersionRef(version=found.version, path=str(found.path), statement_sha256=found.statement_sha256)
        return Registered(run_id=signed.run_id, ref=ref, statement=signed.statement)

    def _there(self, kept: Kept) -> bool:
        """Whether the registry still has the version as it was registered."""
        registered = _registered(kept)
        if registered.statement.expires <= self.clock.now():
            return False
        try:
            found = self.registry.resolve(self.job.use_case, registered.ref.version, self.principal)
        except (NotFound, Conflict):
            return False
        return found.statement_sha256 == registered.ref.statement_sha256 and Path(registered.ref.path).exists()

    # --- the run's own record

    def begin(self) -> None:
        """Note that the run is on."""
        self._write()

    def give_up_half_reserved(self, before: RunRecord | None) -> None:
        """Mark versions as failed that an earlier run reserved and will never fill."""
        if before is None or not (before.reserving or before.reserved):
            return
        waiting = {_signed(kept.folder).version for kept in self._signed_entries()}
        for item in self.registry.versions(self.job.use_case, self.principal):
            ours = before.reserving or item.version == before.reserved
            if item.state == "reserved" and ours and item.version not in waiting:
                self.registry.abandon(self.job.use_case, item.version, self.principal)

    def _signed_entries(self) -> list[Kept]:
        cache = self.stages.cache
        keys = [path.name for path in (cache.root / "sign").glob("[!.]*")]
        return [kept for key in keys if (kept := cache.find("sign", key)[0]) is not None]

    def finish(self) -> None:
        """Note that the run came to its end, and let old entries go."""
        self._write(finished=True, reserved="")
        self.stages.cache.prune(keep=self.stages.used)

    def _write(self, **changes: Any) -> None:
        self.journal = msgspec.structs.replace(self.journal, **changes)
        write_run(self.root, self.journal)

    @property
    def _made_by(self) -> dict[str, str]:
        return {"code": code_sha256(), "lock": self.lock}


def world_size(job: TrainingJob) -> int:
    """Return how many workers train."""
    return int(getattr(job.recipe, "workers", 1))


def fit_rows(data: TrainingData, job: TrainingJob, project: Path, as_of: int, run_name: str, storage: Path) -> Fitted:
    """Fit the job's recipe on the training rows."""
    with _own_interrupts():
        return fit(
            job.recipe, data.train(), features=job.service.features, label=job.label, seed=job.seed,
            run_name=run_name, storage=storage, project=project, train_end=job.ranges(as_of)[0][1],
        )  # fmt: skip


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Give the process its answer to an interrupt back: Ray Train leaves one behind that only speaks to its run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _signed(folder: Path) -> Signed:
    return msgspec.json.decode((folder / "signed.json").read_bytes(), type=Signed)


def _registered(kept: Kept) -> Registered:
    return msgspec.json.decode((kept.folder / "registered.json").read_bytes(), type=Registered)


def _nothing(folder: Path, _: Stage) -> str:
    raise AssertionError(f"{folder.name} is kept")
