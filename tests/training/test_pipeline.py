"""A whole training on a real lake, Ray and registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headway.core.canonical import canonical, sha256
from headway.core.clock import SystemClock
from headway.core.errors import DefinitionError, Forbidden, GateFailed
from headway.core.progress import RecordedProgress
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from headway.governance.contract import LoadedContract
from headway.governance.keys import MODEL_SIGN, development_keys, key_path, trust_root
from headway.governance.registry import Registry
from headway.governance.signing import Signer
from headway.governance.statement import verify_version
from headway.models.artefact import load_artefact, read_definition
from headway.training.definitions import TrainingJob, XGBoostRecipe
from headway.training.gates.document import GATES_FILE, verify_report
from headway.training.pipeline import TrainedVersion, run
from headway.training.recipes.xgboost import Fit, assemble, fit_local
from tests.training import world

# the registry's own store warns about SQLAlchemy from inside
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")


@dataclass
class Bench:
    """Everything a training is given."""

    settings: Settings
    clock: SystemClock
    audit: MemoryAudit
    registry: Registry
    reader: LakeReader
    progress: RecordedProgress

    def train(
        self, job: TrainingJob, *, principal: Principal | None = None, contract: LoadedContract | None = None
    ) -> TrainedVersion:
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
        )

    def acts(self) -> list[tuple[str, str]]:
        return [(event.action, event.outcome) for event in self.audit.events]


def fit_here(recipe: XGBoostRecipe, train: Any, *, features: tuple[str, ...], label: str, seed: int, **_: Any) -> Fit:
    """Stand in for Ray Train where only what comes after matters: the same code in this process."""
    blocks = train.iter_batches(batch_format="pyarrow", batch_size=None)
    matrix, labels = assemble(blocks, features, label)
    booster = fit_local(recipe, matrix, labels, seed=seed)
    return Fit(booster=booster, rounds=recipe.rounds, resumed_from=0, rows=len(labels), read_s=0.0, fit_s=0.0)


@pytest.fixture
def bench(settings: Settings) -> Bench:
    clock = SystemClock()
    audit = MemoryAudit(clock)
    development_keys(settings.home, [MODEL_SIGN])
    world.fill_lake(Location.of(settings), clock)
    return Bench(
        settings=settings,
        clock=clock,
        audit=audit,
        registry=Registry(
            f"sqlite:///{settings.home}/registry.db", audit, clock, artifacts=settings.home / "artefacts"
        ),
        reader=LakeReader(settings, audit, clock),
        progress=RecordedProgress(),
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_ends_in_a_signed_version_that_loads(ray_session: str, bench: Bench) -> None:
    trained = bench.train(world.job)
    folder = Path(trained.ref.path)
    statement = verify_version(
        folder, trust_root(bench.settings), name="shop", version=trained.ref.version, clock=bench.clock,
        statement_sha256=trained.ref.statement_sha256,
    )  # fmt: skip
    assert statement == trained.statement
    artefact = load_artefact(folder, statement)
    assert artefact.input_schema.names == world.shop_v1.features
    assert artefact.profile.rows == trained.metrics["roc_auc"].n
    assert statement.snapshots.keys() == {"events.returns", "events.visits"}
    assert [gate.gate for gate in statement.gates] == ["floor", "floor", "floor", "champion", "latency"]
    report = verify_report(folder / GATES_FILE, trust_root(bench.settings))
    assert sha256(canonical(report)) == statement.gate_report_sha256
    assert statement.gate_report_sha256 in bench.audit.events[-1].refs
    assert read_definition(folder, statement)["as_of"] == world.AS_OF
    assert trained.metrics["roc_auc"].value > 0.75
    stages = ["snapshot", "dataset", "train", "evaluate", "gates", "sign", "register"]
    assert [stage.name for stage in bench.progress.stages] == list(trained.seconds) == stages
    resolved = bench.registry.resolve("shop", "@challenger", principal=world.principal(bench.clock))
    assert (resolved.version, resolved.path) == (trained.ref.version, folder)
    assert ("train", "registered") in bench.acts()
    left = [path for path in (bench.settings.home / "training").rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_candidate_below_a_floor_is_recorded_and_not_signed(
    ray_session: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.training.pipeline.fit", fit_here)
    with pytest.raises(GateFailed, match=r"shop 1: roc_auc 0\.\d+ < floor 0.999 \(job\)"):
        bench.train(world.strict)
    (version,) = bench.registry.versions("shop", principal=world.principal(bench.clock))
    assert version.state == "failed"
    assert ("train", "gates failed") in bench.acts()
    assert list(bench.settings.home.rglob("statement.dsse.json")) == []
    (kept,) = bench.settings.home.rglob(GATES_FILE)
    report = verify_report(kept, trust_root(bench.settings))
    failed = [result["metric"] for result in report["results"] if not result["passed"]]
    assert (failed, report["use_case"]) == (["roc_auc"], "shop")
    assert sha256(canonical(report)) in next(e for e in bench.audit.events if e.outcome == "gates failed").refs


def test_without_the_scope_nothing_is_read(bench: Bench) -> None:
    with pytest.raises(Forbidden, match="train:shop"):
        bench.train(world.job, principal=world.principal(bench.clock, "data:read", "registry:write"))
    assert bench.acts() == []


def test_a_contract_about_another_feature_service_is_refused(bench: Bench) -> None:
    text = world.CONTRACT.replace("feature_service: shop_v1", "feature_service: shop_v2")
    with pytest.raises(DefinitionError, match=r"'shop_v2'.*'shop_v1'"):
        bench.train(world.job, contract=world.contract(text))
