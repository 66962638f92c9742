"""A whole training on a real lake, Ray and registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headway.core.clock import SystemClock
from headway.core.errors import DefinitionError, Forbidden, GateFailed
from headway.core.progress import RecordedProgress
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.lake import Location
from headway.features.reader import LakeReader
from headway.governance.audit_event import MemoryAudit
from headway.governance.contract import LoadedContract
from headway.governance.keys import MODEL_SIGN, development_keys, key_path, trust_root
from headway.governance.registry import Registry
from headway.governance.signing import Signer
from headway.governance.statement import verify_version
from headway.models.artefact import load_artefact, read_definition
from headway.training.definitions import TrainingJob
from headway.training.pipeline import TrainedVersion, run
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
    assert [gate.source for gate in statement.gates] == ["contract", "job", "job"]
    assert read_definition(folder, statement)["as_of"] == world.AS_OF
    assert trained.metrics["roc_auc"].value > 0.75
    stages = ["snapshot", "dataset", "train", "evaluate", "gates", "sign", "register"]
    assert [stage.name for stage in bench.progress.stages] == list(trained.seconds) == stages
    resolved = bench.registry.resolve("shop", "@challenger", principal=world.principal(bench.clock))
    assert (resolved.version, resolved.path) == (trained.ref.version, folder)
    assert ("train", "registered") in bench.acts()
    left = [path for path in (bench.settings.home / "training").rglob("*") if path.is_file()]
    assert left == []

    again = bench.train(world.job)
    assert again.ref.version != trained.ref.version
    matrix = np.nan_to_num(artefact.warmup.matrix())
    second = load_artefact(Path(again.ref.path), again.statement, trial=False)
    np.testing.assert_array_equal(artefact.backend.predict(matrix), second.backend.predict(matrix))


@pytest.mark.ray
@pytest.mark.slow
def test_a_candidate_below_a_floor_is_recorded_and_not_signed(ray_session: str, bench: Bench) -> None:
    with pytest.raises(GateFailed, match=r"shop 1: roc_auc 0\.\d+ < floor 0.999 \(job\)"):
        bench.train(world.strict)
    (version,) = bench.registry.versions("shop", principal=world.principal(bench.clock))
    assert version.state == "failed"
    assert ("train", "gates failed") in bench.acts()
    assert list(bench.settings.home.rglob("statement.dsse.json")) == []


def test_without_the_scope_nothing_is_read(bench: Bench) -> None:
    with pytest.raises(Forbidden, match="train:shop"):
        bench.train(world.job, principal=world.principal(bench.clock, "data:read", "registry:write"))
    assert bench.acts() == []


def test_a_contract_about_another_feature_service_is_refused(bench: Bench) -> None:
    text = world.CONTRACT.replace("feature_service: shop_v1", "feature_service: shop_v2")
    with pytest.raises(DefinitionError, match=r"'shop_v2'.*'shop_v1'"):
        bench.train(world.job, contract=world.contract(text))
