"""The first stages of a training: snapshot, dataset and model; what is kept is loaded only when it is needed."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from headway.core.clock import Clock
from headway.core.errors import NotFound, ServiceFailed
from headway.core.progress import Stage
from headway.core.settings import Settings
from headway.core.types import Matrix, Principal
from headway.features.kernel import kernel_sha256
from headway.features.lake.pins import TrainingPins
from headway.features.lake.reader import LakeReader
from headway.training import stored_dataset, stored_fit
from headway.training.audit import audit_training
from headway.training.dataset import Evaluation, TrainingData, build, pin_snapshots
from headway.training.definitions import TrainingJob
from headway.training.fitted import Fitted
from headway.training.journal import RunRecord
from headway.training.origin import code_sha256, describe_job
from headway.training.recipes.fitting import fit
from headway.training.stage_cache import Kept
from headway.training.stages import Stages

_DATASET = ("use_case", "as_of", "spine", "label", "label_delay", "train", "evaluate", "group", "service")
"""What of a described job decides its rows."""


@dataclass(kw_only=True)
class ModelSteps:
    """One run's stages up to the model; each method is one, and asks for those before it."""

    job: TrainingJob
    settings: Settings
    as_of: int
    principal: Principal
    reader: LakeReader
    clock: Clock
    pins: TrainingPins | None
    lock: str
    journal: RunRecord
    stages: Stages

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
            "judged": list(self.job.judged_columns),
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
