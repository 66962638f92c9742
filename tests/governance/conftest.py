"""What the governance tests share: a clock, keys, people, contracts and a signed version."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.core.canonical import sha256
from headway.core.clock import ManualClock
from headway.core.settings import Settings, load_settings
from headway.core.times import DAY, parse_time
from headway.core.types import Principal
from headway.governance.audit import MemoryAudit
from headway.governance.keys import development_keys, trust_root
from headway.governance.signing import TrustRoot

ROOT = Path(__file__).parents[2]
ROLES = ("product", "risk", "sre")
NOW = parse_time("2026-01-15T12:00:00Z")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    development_keys(path, [f"contract:sign:{role}" for role in ROLES])
    return path


@pytest.fixture
def settings(home: Path) -> Settings:
    return load_settings(home=home)


@pytest.fixture
def trust(settings: Settings) -> TrustRoot:
    return trust_root(settings)


@pytest.fixture
def audit(clock: ManualClock) -> MemoryAudit:
    return MemoryAudit(clock)


@pytest.fixture
def person() -> Callable[..., Principal]:
    def make(*scopes: str, expires: int = NOW + DAY) -> Principal:
        return Principal(sub="ann", kind="human", scopes=frozenset(scopes), purpose="tests", expires=expires)

    return make


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    folder = tmp_path / "apps" / "fraud"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "serve_apps" / "fraud" / "contract.yaml", folder)
    return folder / "contract.yaml"


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "fraud-3"
    (folder / "tables").mkdir(parents=True)
    (folder / "model.json").write_bytes(b'{"trees": []}')
    (folder / "tables" / "profile.json").write_bytes(b"{}")
    return folder


@pytest.fixture
def fields() -> dict[str, Any]:
    return {
        "name": "fraud",
        "version": "3",
        "created": NOW,
        "expires": NOW + 90 * DAY,
        "run_id": "r1",
        "git_sha": "0" * 40,
        "lock_sha256": sha256(b"lock"),
        "contract_sha256": sha256(b"contract"),
        "kernel_sha256": sha256(b"kernel"),
        "snapshots": {"events.transactions": 8_723_645_982_734},
        "feature_service": "fraud_v1",
        "metrics": {"roc_auc": 0.9, "average_precision": {"value": 0.6, "low": 0.57, "high": 0.63}},
        "gates": [{"metric": "roc_auc", "value": 0.9, "floor": 0.8, "passed": True, "source": "contract"}],
        "reference_profile_sha256": sha256(b"profile"),
        "input_schema": {"amount": {"type": "float32", "minimum": 0.0, "maximum": 900.0, "nulls": False}},
        "hardware": {"profile": "2 cores", "tier": "cpu", "minimum_memory_bytes": 2**28},
        "backend": "onnx",
    }
