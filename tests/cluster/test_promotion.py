"""Promotion in an installation: the tag follows, people read who did what, and the rest stays out of service."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster import deploy as deploying
from headway.cluster.compose import Installation
from headway.cluster.deploy import deploy
from headway.cluster.promotion import promote, refuse, require_production, withdraw
from headway.cluster.training import make_champion
from headway.cluster.versions import details, summaries
from headway.core.canonical import sha256
from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import Forbidden, NotSigned, Tampered
from headway.core.progress import RecordedProgress
from headway.core.routing import VersionRef, read_routing
from headway.core.settings import load_settings
from headway.core.times import DAY
from headway.core.types import Principal
from headway.governance.audit_event import MemoryAudit
from headway.governance.keys import MODEL_SIGN, development_keys, signer_for, trust_root
from headway.governance.registered_version import RegisteredVersion, lineage_tags
from headway.governance.statement import parse_statement, read_statement, sign_version

NOW = 1_768_478_400_000_000


def who(sub: str, *more: str) -> Principal:
    scopes = frozenset({"registry:read", "registry:approve", "rollout:toy", "deploy:toy", *more})
    return Principal(sub=sub, kind="human", scopes=scopes, purpose="tests", expires=NOW + DAY)


ANN, BOB, TESS = who("ann"), who("bob"), who("tess")


class Registry:
    """Two ready versions and one that failed; remembers who moved what."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"1": "staging", "2": "staging"}
        self.moved_by: list[str] = []
        self.aliases: list[tuple[str, str]] = []

    def resolve(self, name: str, version: str, principal: Principal) -> RegisteredVersion:
        return self.one("2" if version == "challenger" else version)

    def versions(self, name: str, principal: Principal) -> list[RegisteredVersion]:
        failed = RegisteredVersion(version="3", path=self.folder / "3", run_id="r3", state="failed")
        return [failed, self.one("2"), self.one("1")]

    def move(self, name: str, version: str, environment: str, principal: Principal) -> None:
        self.environment[version] = environment
        self.moved_by.append(principal.kind)

    def alias(self, name: str, alias: str, version: str, principal: Principal) -> None:
        self.aliases.append((alias, version))

    def one(self, version: str) -> RegisteredVersion:
        tags = lineage_tags(parse_statement(read_statement(self.folder / version)))
        return RegisteredVersion(
            version=version,
            path=self.folder / version,
            run_id=f"r{version}",
            environment=self.environment[version],
            lineage={key.removeprefix("headway.lineage."): text for key, text in tags.items()},
        )


@pytest.fixture
def at(tmp_path: Path) -> Any:
    home = tmp_path / "home"
    home.mkdir()
    development_keys(home, [])
    settings = load_settings(home=home, require_production=True)
    for version in ("1", "2"):
        folder = tmp_path / version
        folder.mkdir()
        (folder / "model.onnx").write_bytes(version.encode())
        fields = {
            "name": "toy", "version": version, "created": NOW, "expires": NOW + 90 * DAY, "run_id": f"r{version}",
            "git_sha": "0" * 40, "lock_sha256": sha256(b"lock"), "contract_sha256": sha256(b"contract"),
            "kernel_sha256": sha256(b"kernel"), "snapshots": {"events.toys": 7}, "feature_service": "toy_v1",
            "metrics": {"roc_auc": {"value": 0.9, "low": 0.8, "high": 0.95}},
            "gates": [{"metric": "roc_auc", "value": 0.9, "floor": 0.8, "passed": True, "source": "contract"}],
            "reference_profile_sha256": sha256(b"profile"), "input_schema": {},
            "hardware": {"profile": "", "tier": "cpu", "minimum_memory_bytes": 0}, "backend": "onnx",
            "requested_by": "tess",
        }  # fmt: skip
        sign_version(folder, fields, signer_for(settings, MODEL_SIGN))
    clock = ManualClock(NOW)
    return SimpleNamespace(
        settings=settings,
        clock=clock,
        audit=MemoryAudit(clock),
        control=MemoryControlStore(),
        registry=Registry(tmp_path),
        trust=trust_root(settings),
        project=SimpleNamespace(require=lambda use_case: use_case),
        workload=lambda sub, scopes, purpose: Principal(
            sub=sub, kind="workload", scopes=frozenset(scopes), purpose=purpose, expires=NOW + DAY
        ),
    )


def ref(at: Any, version: str) -> VersionRef:
    folder = at.registry.folder / version
    return VersionRef(version=version, path=str(folder), statement_sha256=read_statement(folder).payload_sha256)


def test_the_tag_follows_two_people_and_is_written_by_a_program(at: Any) -> None:
    promote(at, "toy", "challenger", ANN)
    assert at.registry.environment["2"] == "staging"
    with pytest.raises(Forbidden, match="training"):
        promote(at, "toy", "2", TESS)
    assert promote(at, "toy", "2", BOB).environment == "production"
    assert at.registry.environment == {"1": "staging", "2": "production"}
    withdraw(at, "toy", "2", ANN, "wrong labels")
    assert at.registry.environment["2"] == "staging"
    assert at.registry.moved_by == ["workload", "workload"]


def test_only_production_versions_become_champion_where_it_is_required(at: Any) -> None:
    with pytest.raises(NotSigned, match="promote toy 1"):
        make_champion(at, "toy", ref(at, "1"), ANN, "first")
    assert read_routing(at.control, "toy").champion is None
    assert [(event.action, event.outcome) for event in at.audit.events] == [("rollout.promote", "denied")]
    at.registry.environment["1"] = "production"  # the tag by hand
    with pytest.raises(NotSigned):
        make_champion(at, "toy", ref(at, "1"), ANN, "first")
    promote(at, "toy", "1", ANN)
    with pytest.raises(NotSigned):
        make_champion(at, "toy", ref(at, "1"), ANN, "first")
    promote(at, "toy", "1", BOB)
    make_champion(at, "toy", ref(at, "1"), ANN, "first")
    assert at.registry.aliases == [("champion", "1")]
    with pytest.raises(NotSigned):
        make_champion(at, "toy", ref(at, "2"), ANN, "better")
    (at.registry.folder / "1" / "model.onnx").write_bytes(b"other")
    with pytest.raises(Tampered):
        require_production(at, "toy", ref(at, "1"))


def test_a_champion_that_is_not_in_production_is_not_deployed(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = SimpleNamespace(sha256="c" * 64)
    monkeypatch.setattr(deploying, "_verified", lambda at, use_case: (contract, ref(at, "1")))
    with pytest.raises(NotSigned, match="in staging"):
        deploy(cast(Installation, at), "toy", ANN, RecordedProgress())
    assert [(event.action, event.outcome) for event in at.audit.events] == [("deploy", "denied")]


def test_for_development_any_signed_version_may_serve_and_it_says_so(at: Any) -> None:
    at.settings = load_settings(home=at.settings.home)
    assert "require_production is off" in require_production(at, "toy", ref(at, "1"))
    make_champion(at, "toy", ref(at, "1"), ANN, "first")
    assert at.registry.aliases == [("champion", "1")]


def test_people_see_stage_signature_and_lineage(at: Any) -> None:
    promote(at, "toy", "1", ANN)
    promote(at, "toy", "1", BOB)
    promote(at, "toy", "2", ANN)
    failed, second, first = summaries(at, "toy", ANN)
    assert (failed.state, failed.signature) == ("failed", "none")
    assert (second.stage, second.signature) == ("proposed", "valid")
    assert (first.stage, first.signature) == ("production", "valid")
    assert first.made_from.startswith("toy_v1, contract ")
    assert first.made_from.endswith("1 snapshots")
    assert first.lineage["snapshot.events.toys"] == "7"
    found = details(at, "toy", "1", ANN)
    assert found["lineage"]["snapshot of events.toys"] == 7
    assert found["lineage"]["kernel_sha256"] == sha256(b"kernel")
    assert found["lineage"]["requested_by"] == "tess"
    assert found["gates"] == {"roc_auc (contract)": "holds"}
    assert found["promotion"]["proposed"].startswith("ann, ")
    assert found["promotion"]["approved"].startswith("bob, ")
    refuse(at, "toy", "2", BOB, "segment 4")
    assert details(at, "toy", "2", ANN)["promotion"]["refused"].endswith(": segment 4")
    (at.registry.folder / "1" / "model.onnx").write_bytes(b"other")
    *_, first = summaries(at, "toy", ANN)
    assert first.stage == "none"
    assert first.signature.startswith("refused: ")
    with pytest.raises(Tampered):
        details(at, "toy", "1", ANN)
