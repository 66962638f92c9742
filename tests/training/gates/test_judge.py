"""All gates of a candidate together, against a champion from its own signed files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from headway.core.clock import SystemClock
from headway.core.errors import GateFailed, Tampered
from headway.core.routing import VersionRef
from headway.core.times import DAY
from headway.core.types import Matrix
from headway.features.profile import build_profile
from headway.governance.keys import MODEL_SIGN, development_keys, key_path
from headway.governance.signing import Signer, TrustRoot
from headway.governance.statement import sign_version
from headway.models.artefact import write_artefact
from headway.models.input_schema import describe_input
from headway.training.dataset import Evaluation
from headway.training.definitions import Gate, Segment, TrainingJob
from headway.training.gates.document import sign_report, verify_report, write_report
from headway.training.gates.judge import Against, judge, measure, rows_of
from headway.training.gates.results import GateReport
from headway.training.origin import describe_job
from headway.training.recipes.xgboost import Fit, fit_local
from tests.training import world

FEATURES = world.shop_v1.features
JOB = replace(
    world.job,
    group=None,
    gates=(Gate(metric="roc_auc", floor=0.6, primary=True, margin=0.02), Gate(metric="brier", ceiling=0.25)),
    segments=(Segment(column="amount", bins=(0.0,), minimum=200),),
    refresh="not_inferior",
)
CHAMPION_AS_OF = world.AS_OF - 14 * DAY


@dataclass(frozen=True)
class Setting:
    """A champion that knows half of what there is to know, and rows to judge on."""

    evaluation: Evaluation
    matrix: Matrix
    label: Matrix
    champion: VersionRef
    trust: TrustRoot
    signer: Signer

    def report(self, job: TrainingJob = JOB, *, rounds: int = 20, against: Against | None = None) -> GateReport:
        """Return what the gates say of a candidate of `rounds` trees."""
        fitted = fit(rounds, self.matrix, self.label)
        rows = rows_of(job, self.evaluation, fitted.predict(self.evaluation.matrix))
        return judge(
            job, self.evaluation, rows, measure(rows), fitted=fitted, labelled=None,
            against=against or Against(champion=self.champion), contract=world.contract(), as_of=world.AS_OF,
            snapshots={}, trust=self.trust, clock=SystemClock(),
        )  # fmt: skip


def fit(rounds: int, matrix: Matrix, label: Matrix) -> Fit:
    booster = fit_local(replace(world.recipe, rounds=rounds), matrix, label, seed=1)
    return Fit(booster=booster, rounds=rounds, resumed_from=0, rows=len(label), read_s=0.0, fit_s=0.0)


def draw(seed: int, n: int = 4_000) -> tuple[Matrix, Matrix]:
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(n, len(FEATURES))).astype(np.float32)
    label = (matrix[:, 0] + matrix[:, 1] + generator.normal(size=n) > 0.5).astype(np.float32)
    return matrix, label


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    home = tmp_path_factory.mktemp("home")
    development_keys(home, [MODEL_SIGN])
    signer, clock, folder = Signer(key_path(home, MODEL_SIGN)), SystemClock(), home / "models" / "3"
    matrix, label = draw(1)
    fitted, schema = fit(5, matrix, label), describe_input(FEATURES, matrix)
    profile = build_profile(matrix, list(FEATURES), fitted.predict(matrix))
    reports = write_artefact(
        folder, models=fitted.models(), profile=profile, input_schema=schema, sample=matrix[:200],
        definition=describe_job(JOB, CHAMPION_AS_OF), clock=clock,
    )  # fmt: skip
    now = clock.now()
    fields = {
        "name": "shop", "version": "3", "created": now, "expires": now + DAY, "run_id": "r", "git_sha": "g",
        "lock_sha256": "", "contract_sha256": "0" * 64, "kernel_sha256": "0" * 64, "snapshots": {},
        "feature_service": "shop_v1", "metrics": {"roc_auc": 0.9}, "gates": (), "input_schema": {},
        "reference_profile_sha256": profile.sha256(), "backend": reports[0].name,
        "hardware": {"profile": "test", "tier": "cpu", "minimum_memory_bytes": 1},
    }  # fmt: skip
    envelope = sign_version(folder, fields, signer)
    rows, truth = draw(2)
    evaluation = Evaluation(
        matrix=rows, label=truth, event_time=np.arange(len(truth), dtype=np.int64), group=None, schema=schema
    )
    return Setting(
        evaluation=evaluation, matrix=matrix, label=label, signer=signer, trust=TrustRoot.load(home / "trust.json"),
        champion=VersionRef(version="3", path=str(folder), statement_sha256=envelope.payload_sha256),
    )  # fmt: skip


def kinds(report: GateReport) -> list[str]:
    return [result.gate for result in report.results]


def failed(report: GateReport) -> set[str]:
    return {result.gate for result in report.results if not result.passed}


def test_a_better_candidate_passes_and_every_gate_is_told(setting: Setting) -> None:
    report = setting.report(rounds=40)
    assert report.passed
    assert kinds(report) == ["floor", "floor", "floor", "champion", "champion", "segment", "segment", "latency"]
    assert (report.champion, len(report.segments)) == ("3", 2)
    for part in report.segments:
        assert part.measures["roc_auc"].low <= part.measures["roc_auc"].value <= part.measures["roc_auc"].high


def test_a_refresh_may_be_equal_and_a_change_may_not(setting: Setting) -> None:
    assert setting.report(rounds=5).passed
    changed = replace(JOB, seed=8)
    assert failed(setting.report(changed, rounds=5)) == {"champion"}
    assert failed(setting.report(replace(JOB, refresh="superior"), rounds=5)) == {"champion"}


def test_a_worse_candidate_fails_and_the_error_names_the_champion(setting: Setting) -> None:
    report = setting.report(rounds=1)
    assert {"champion", "segment"} <= failed(report)
    with pytest.raises(GateFailed, match=r"champion roc_auc -0\.\d+ .* < floor -0.02 \(champion 3\)"):
        report.require("shop 4")


def test_a_champion_that_cannot_be_asked_fails_unless_somebody_says_why(setting: Setting) -> None:
    gone = replace_ref(setting.champion, statement_sha256="0" * 64)
    report = setting.report(rounds=40, against=Against(champion=gone))
    assert failed(report) == {"champion"}
    assert "not measured (champion 3)" in str(report.results[3])
    told = setting.report(rounds=40, against=Against(champion=gone, without_champion="new features"))
    assert told.passed
    assert "not judged (job): new features" in str(told.results[3])


def test_a_champion_that_was_trained_on_these_rows_is_not_compared(setting: Setting) -> None:
    longer = replace(JOB, evaluate="41d", train="13d")
    report = setting.report(longer, rounds=40)
    assert "trained on rows of this evaluation range" in str(report.results[3])
    assert failed(report) == {"champion"}


def test_the_first_version_stands_on_its_floors(setting: Setting) -> None:
    report = setting.report(against=Against())
    assert report.passed
    assert "no champion yet" in str(report.results[3])


def test_the_report_is_signed_and_a_changed_one_is_refused(setting: Setting, tmp_path: Path) -> None:
    report = setting.report(rounds=1)
    path = write_report(sign_report(report, setting.signer), tmp_path)
    found = verify_report(path, setting.trust)
    assert [result["passed"] for result in found["results"]] == [result.passed for result in report.results]
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"sig":"', b'"sig":"AA'))
    with pytest.raises(Tampered):
        verify_report(path, setting.trust)


def replace_ref(ref: VersionRef, *, statement_sha256: str) -> VersionRef:
    return VersionRef(version=ref.version, path=ref.path, statement_sha256=statement_sha256)
