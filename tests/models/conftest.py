"""A small booster and a signed version of it, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.core.clock import SystemClock
from headway.core.types import Matrix
from headway.features.profile import build_profile
from headway.governance.keys import MODEL_SIGN, development_keys, key_path
from headway.governance.signing import Signer, TrustRoot
from headway.governance.statement import sign_version
from headway.models.artefact import write_artefact
from headway.models.input_schema import describe_input
from headway.models.onnx_export import tree_models

NAMES = ("amount", "count_7d", "mean_7d", "night")


@dataclass(frozen=True)
class Made:
    """What the tests need of a version."""

    folder: Path
    matrix: Matrix
    booster: Any
    trust: TrustRoot
    signer: Signer
    fields: dict[str, Any]


def make_matrix(rows: int = 4_000) -> Matrix:
    generator = np.random.default_rng(11)
    matrix = generator.normal(size=(rows, len(NAMES))).astype(np.float32)
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    return matrix


def make_booster(matrix: Matrix, rounds: int = 60, **params: object) -> Any:
    import xgboost

    filled = np.nan_to_num(matrix)
    noise = np.random.default_rng(12).normal(size=len(matrix))
    label = filled[:, 0] + filled[:, 1] * filled[:, 2] + 0.5 * noise > 1.2
    settings = {"objective": "binary:logistic", "max_depth": 5, "nthread": 1, "seed": 1} | params
    return xgboost.train(settings, xgboost.QuantileDMatrix(matrix, label=label), num_boost_round=rounds)


def make_version(home: Path, folder: Path) -> Made:
    matrix = make_matrix()
    booster = make_booster(matrix)
    schema = describe_input(NAMES, matrix)
    profile = build_profile(matrix, list(NAMES), booster.inplace_predict(matrix))
    reports = write_artefact(
        folder,
        models=tree_models(booster),
        profile=profile,
        input_schema=schema,
        sample=matrix[:500],
        definition={"name": "fraud_v1"},
        clock=SystemClock(),
    )
    development_keys(home, ["model:sign"])
    signer = Signer(key_path(home, MODEL_SIGN))
    now = SystemClock().now()
    fields = {
        "name": "fraud", "version": "1", "created": now, "expires": now + 10**12, "run_id": "r", "git_sha": "g",
        "lock_sha256": "", "contract_sha256": "0" * 64, "kernel_sha256": "0" * 64, "snapshots": {"events.t": 1},
        "feature_service": "fraud_v1", "metrics": {"roc_auc": 0.9}, "gates": (),
        "reference_profile_sha256": profile.sha256(), "input_schema": {name: {"type": "float32"} for name in NAMES},
        "hardware": {"profile": "test", "tier": "cpu", "minimum_memory_bytes": 1}, "backend": reports[0].name,
    }  # fmt: skip
    sign_version(folder, fields, signer)
    trust = TrustRoot.load(home / "trust.json")
    return Made(folder=folder, matrix=matrix, booster=booster, trust=trust, signer=signer, fields=fields)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a signed version; do not change it (copy the folder)."""
    home = tmp_path_factory.mktemp("home")
    return make_version(home, home / "models" / "fraud-1")


def decode(folder: Path, name: str) -> Any:
    return msgspec.json.decode((folder / name).read_bytes())
