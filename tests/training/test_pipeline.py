"""A whole training on a real lake, Ray and registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.canonical import canonical, sha256
from headway.core.errors import DefinitionError, Forbidden, GateFailed
from headway.core.settings import Settings
from headway.governance.keys import trust_root
from headway.governance.statement import verify_version
from headway.models.artefact import load_artefact, read_definition
from headway.training.gates.document import GATES_FILE, verify_report
from tests.training import world
from tests.training.bench import Bench, fit_here, make_bench

# the registry's own store warns about SQLAlchemy from inside
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")


@pytest.fixture
def bench(settings: Settings) -> Bench:
    return make_bench(settings)


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
    kept = {path.parent.parent.name for path in (bench.settings.home / "training").rglob("entry.json")}
    assert kept == {"snapshot", "dataset", "train", "evaluate", "gates", "register"}  # signed files: the registry's
    assert list((bench.settings.home / "training" / "checkpoints").iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_candidate_below_a_floor_is_recorded_and_not_signed(
    ray_session: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.training.steps.fit", fit_here)
    with pytest.raises(GateFailed, match=r"shop 1: roc_auc 0\.\d+ < floor 0.999 \(job\)"):
        bench.train(world.strict)
    (version,) = bench.registry.versions("shop", principal=world.principal(bench.clock))
    assert version.state == "failed"
    assert ("train", "gates failed") in bench.acts()
    assert list(bench.settings.home.rglob("statement.dsse.json")) == []
    (kept,) = (bench.settings.home / "artefacts").rglob(GATES_FILE)
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
