"""What a whole training needs in a test: a lake with the tests' own use case, a registry, an audit log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headway.core.clock import SystemClock
from headway.core.progress import RecordedProgress
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.lake.pins import TrainingPins
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from headway.governance.contract import LoadedContract
from headway.governance.keys import MODEL_SIGN, development_keys, key_path
from headway.governance.registry import Registry
from headway.governance.signing import Signer
from headway.training.definitions import TrainingJob, XGBoostRecipe
from headway.training.gates.judge import Against
from headway.training.pipeline import TrainedVersion, run
from headway.training.recipes.xgboost import Fit, assemble, fit_local
from tests.training import world


@dataclass
class Bench:
    """Everything a training is given."""

    settings: Settings
    clock: SystemClock
    audit: MemoryAudit
    registry: Registry
    reader: LakeReader
    progress: RecordedProgress = field(default_factory=RecordedProgress)

    def train(
        self,
        job: TrainingJob,
        *,
        principal: Principal | None = None,
        contract: LoadedContract | None = None,
        contract_now: Callable[[], LoadedContract] | None = None,
        pins: TrainingPins | None = None,
        against: Against | None = None,
    ) -> TrainedVersion:
        self.progress = RecordedProgress()
        return run(
            job,
            settings=self.settings,
            as_of=world.AS_OF,
            principal=principal or world.principal(self.clock),
            registry=self.registry,
            reader=self.reader,
            signer=Signer(key_path(self.settings.home, MODEL_SIGN)),
            audit=self.audit,
            clock=self.clock,
            progress=self.progress,
            contract=contract or world.contract(),
            contract_now=contract_now,
            pins=pins,
            against=lambda: against or Against(),
        )

    def notes(self) -> dict[str, list[str]]:
        """Return what each stage of the last training said."""
        return {stage.name: stage.notes for stage in self.progress.stages}

    def acts(self) -> list[tuple[str, str]]:
        return [(event.action, event.outcome) for event in self.audit.events]


def fit_here(recipe: XGBoostRecipe, train: Any, *, features: tuple[str, ...], label: str, seed: int, **_: Any) -> Fit:
    """Stand in for Ray Train where only what comes after matters: the same code in this process."""
    blocks = train.iter_batches(batch_format="pyarrow", batch_size=None)
    matrix, labels = assemble(blocks, features, label)
    booster = fit_local(recipe, matrix, labels, seed=seed)
    return Fit(booster=booster, rounds=recipe.rounds, resumed_from=0, rows=len(labels), read_s=0.0, fit_s=0.0)


def make_bench(settings: Settings) -> Bench:
    """Return a bench with a filled lake and development keys."""
    clock = SystemClock()
    audit = MemoryAudit(clock)
    development_keys(settings.home, [MODEL_SIGN])
    world.fill_lake(Location.of(settings), clock)
    registry = Registry(f"sqlite:///{settings.home}/registry.db", audit, clock, artifacts=settings.home / "artefacts")
    return Bench(
        settings=settings, clock=clock, audit=audit, registry=registry, reader=LakeReader(settings, audit, clock)
    )
