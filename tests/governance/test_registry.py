from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headway.core.clock import ManualClock
from headway.core.errors import Conflict, Forbidden, InvalidValue, NotFound, NotSigned, PlatformError, Unauthenticated
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.governance.audit import MemoryAudit
from headway.governance.keys import MODEL_SIGN, signer_for
from headway.governance.registered_version import RegisteredVersion
from headway.governance.registry import Registry
from headway.governance.signing import TrustRoot
from headway.governance.statement import sign_version, verify_version
from tests.governance.conftest import NOW

pytestmark = [
    pytest.mark.slow,
    # MLflow's own, at import and when it makes its database
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
Person = Callable[..., Principal]
VALUES: dict[str, Any] = {"metrics": {"roc_auc": 0.9}, "params": {"rounds": 50}, "tags": {"use_case": "fraud"}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: making it takes seconds; each test uses a model of its own."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def registry(stored: Path, audit: MemoryAudit, clock: ManualClock) -> Registry:
    return Registry(f"sqlite:///{stored}/mlflow.db", audit, clock, artifacts=stored / "artifacts")


@pytest.fixture
def writer(person: Person) -> Principal:
    return replace(person("registry:read", "registry:write"), kind="ci")


@pytest.fixture
def registered(
    registry: Registry, version: Path, fields: dict[str, Any], settings: Settings, writer: Principal
) -> Callable[[str], RegisteredVersion]:
    def make(name: str) -> RegisteredVersion:
        def sign(run_id: str, number: str) -> None:
            named = {**fields, "name": name, "version": number, "run_id": run_id}
            sign_version(version, named, signer_for(settings, MODEL_SIGN))

        return registry.register(name, version, principal=writer, sign=sign, **VALUES)

    return make


def test_a_registered_version_verifies_and_is_found_by_alias(
    registry: Registry,
    registered: Callable[[str], RegisteredVersion],
    writer: Principal,
    trust: TrustRoot,
    clock: ManualClock,
    audit: MemoryAudit,
) -> None:
    first, second = registered("found"), registered("found")
    assert (first.version, second.version) == ("1", "2")
    statement = verify_version(
        second.path, trust, name="found", version="2", clock=clock, statement_sha256=second.statement_sha256
    )
    assert statement.run_id == second.run_id
    registry.alias("found", "champion", "1", writer)
    registry.alias("found", "challenger", "2", writer)
    assert registry.resolve("found", "@champion", writer).path == first.path
    registry.alias("found", "champion", "2", writer)
    assert registry.resolve("found", "champion", writer).aliases == ("challenger", "champion")
    assert registry.resolve("found", "1", writer).environment == "staging"
    registry.move("found", "1", "production", writer)
    assert registry.resolve("found", "1", writer).environment == "production"
    listed = registry.versions("found", writer)
    assert [(item.version, item.state) for item in listed] == [("2", "ready"), ("1", "ready")]
    actions = [event.action for event in audit.events if event.outcome == "done"]
    assert actions[:4] == ["registry.reserve", "registry.finish", "registry.reserve", "registry.finish"]
    meant, done = (event for event in audit.events if event.action == "registry.finish" and event.resource[-1] == "1")
    assert (meant.outcome, done.outcome) == ("intended", "done")
    assert meant.refs == done.refs == (first.statement_sha256,)
    assert meant.resource == done.resource == "model:found/1"


def test_a_version_that_failed_stays_visible_and_serves_nobody(
    registry: Registry, version: Path, writer: Principal
) -> None:
    with pytest.raises(NotSigned):
        registry.register("failed", version, principal=writer, sign=lambda run_id, number: None, **VALUES)
    (found,) = registry.versions("failed", writer)
    assert found.state == "failed"
    _, gated = registry.reserve("failed", writer)
    registry.abandon("failed", gated, writer, metrics={"roc_auc": 0.4})
    assert [item.state for item in registry.versions("failed", writer)] == ["failed", "failed"]
    for refused in (
        lambda: registry.alias("failed", "champion", "1", writer),
        lambda: registry.move("failed", "1", "production", writer),
        lambda: registry.resolve("failed", "1", writer),
        lambda: registry.abandon("failed", "1", writer),
    ):
        with pytest.raises(Conflict):
            refused()


def test_a_version_is_filled_once_and_again_only_with_the_same(
    registry: Registry,
    registered: Callable[[str], RegisteredVersion],
    version: Path,
    fields: dict[str, Any],
    settings: Settings,
    writer: Principal,
) -> None:
    made = registered("once")
    assert registry.finish("once", "1", version, principal=writer, **VALUES) == made
    sign_version(version, {**fields, "name": "once", "version": "2"}, signer_for(settings, MODEL_SIGN))
    with pytest.raises(Conflict, match="never filled twice"):
        registry.finish("once", "1", version, principal=writer, **VALUES)


def test_what_the_audit_log_cannot_hold_is_not_done(
    registry: Registry,
    registered: Callable[[str], RegisteredVersion],
    version: Path,
    writer: Principal,
    audit: MemoryAudit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered("full")
    _, reserved = registry.reserve("full", writer)

    def full(**_: object) -> None:
        raise PlatformError("the audit log cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "append", full)
        for act in (
            lambda: registry.alias("full", "champion", "1", writer),
            lambda: registry.move("full", "1", "production", writer),
            lambda: registry.finish("full", reserved, version, principal=writer, **VALUES),
            lambda: registry.abandon("full", reserved, writer),
            lambda: registry.reserve("full", writer),
        ):
            with pytest.raises(PlatformError, match="audit log"):
                act()
    newer, older = registry.versions("full", writer)
    assert (older.version, older.environment, older.aliases) == ("1", "staging", ())
    assert (newer.version, newer.state) == (reserved, "reserved")


def test_an_act_that_failed_is_recorded_as_meant_and_failed(
    registry: Registry,
    registered: Callable[[str], RegisteredVersion],
    version: Path,
    writer: Principal,
    audit: MemoryAudit,
) -> None:
    registered("broken")
    _, reserved = registry.reserve("broken", writer)
    before = len(audit.events)
    with pytest.raises(ValueError, match="high"):
        registry.finish("broken", reserved, version, principal=writer, **{**VALUES, "metrics": {"roc_auc": "high"}})
    assert [(event.action, event.outcome) for event in audit.events[before:]] == [
        ("registry.finish", "intended"),
        ("registry.finish", "failed"),
    ]


def test_what_does_not_exist_is_not_found(
    registry: Registry, registered: Callable[[str], RegisteredVersion], writer: Principal
) -> None:
    registered("exists")
    for name, wanted in (("exists", "7"), ("exists", "champion"), ("absent", "1"), ("absent", "champion")):
        with pytest.raises(NotFound):
            registry.resolve(name, wanted, writer)
    with pytest.raises(NotFound):
        registry.alias("exists", "champion", "7", writer)
    assert registry.versions("absent", writer) == []


def test_rights_are_asked_first_and_refusals_are_audited(
    registry: Registry, person: Person, audit: MemoryAudit, writer: Principal
) -> None:
    reader = person("registry:read")
    with pytest.raises(Forbidden, match="registry:write"):
        registry.reserve("rights", reader)
    with pytest.raises(Forbidden, match="registry:write"):
        registry.alias("rights", "champion", "1", reader)
    with pytest.raises(Forbidden, match="registry:read"):
        registry.resolve("rights", "1", person())
    with pytest.raises(Forbidden, match="only ci and workload"):
        registry.reserve("rights", person("registry:read", "registry:write"))
    assert [event.outcome for event in audit.events] == ["denied"] * 4
    with pytest.raises(Unauthenticated):
        registry.reserve("rights", person("registry:write", expires=NOW))
    assert registry.versions("rights", writer) == []


def test_names_aliases_and_environments_are_checked(registry: Registry, writer: Principal) -> None:
    for name in ("", "A", "a/b", "x' OR name != '"):
        with pytest.raises(InvalidValue):
            registry.versions(name, writer)
    with pytest.raises(InvalidValue, match="alias"):
        registry.alias("checked", "best", "1", writer)
    with pytest.raises(InvalidValue, match="environment"):
        registry.move("checked", "1", "test", writer)
