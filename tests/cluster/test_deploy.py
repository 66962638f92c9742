from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster import deploy as module
from headway.cluster import history
from headway.cluster.compose import Installation
from headway.cluster.deploy import deploy
from headway.core import ray_session
from headway.core.errors import NotSigned, PlatformError, ServiceFailed
from headway.core.progress import RecordedProgress
from headway.core.types import Principal
from headway.governance.audit_event import AuditEvent, MemoryAudit

ANN = Principal(sub="ann", kind="human", scopes=frozenset({"deploy:churn"}), purpose="tests", expires=2**62)
CONTRACT, CHAMPION = "c" * 64, "d" * 64


class World:
    """A deployment whose steps only say that they were taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.audit = MemoryAudit()
        self.steps: list[str] = []
        self.verify_error: Exception | None = None
        self.run_error: Exception | None = None
        project = SimpleNamespace(require=lambda use_case: use_case)
        self.watermarks = {"filled": 7, "empty": 0}
        self.at = cast(
            Installation,
            SimpleNamespace(
                audit=self.audit,
                project=project,
                settings=SimpleNamespace(require_production=False),
                service=lambda use_case: SimpleNamespace(stored=["filled"]),
                online=SimpleNamespace(watermark=self.watermarks.get),
            ),
        )
        monkeypatch.setattr(module, "_verified", self.verified)
        monkeypatch.setattr(module, "deployment_options", lambda contract, **_: {"num_replicas": 2})
        monkeypatch.setattr(module, "base_url", lambda at: "http://here")
        monkeypatch.setattr(module, "follow", lambda at: self.steps.append("follow"))
        monkeypatch.setattr(ray_session, "start_serve", lambda settings: self.steps.append("serve"))
        monkeypatch.setattr(module, "_run", self.run)
        monkeypatch.setattr(module, "_retire", lambda at, use_case: self.steps.append("retire"))
        monkeypatch.setattr(module, "start_drainer", lambda at, use_case: self.steps.append("drainer"))

    def verified(self, at: Installation, use_case: str) -> tuple[Any, Any]:
        if self.verify_error is not None:
            raise self.verify_error
        return SimpleNamespace(sha256=CONTRACT), SimpleNamespace(version="3", statement_sha256=CHAMPION)

    def run(self, use_case: str, options: dict[str, Any]) -> None:
        assert self.outcomes() == ["intended"], "recorded before anything is changed"
        self.steps.append("run")
        if self.run_error is not None:
            raise self.run_error

    def deploy(self) -> None:
        deploy(self.at, "churn", ANN, RecordedProgress())

    def outcomes(self) -> list[str]:
        return [event.outcome for event in self.audit.events]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_rollout_is_audited_before_and_after(world: World) -> None:
    world.deploy()
    assert world.steps == ["follow", "serve", "run", "drainer", "retire"]
    assert world.outcomes() == ["intended", "done"]
    assert {event.refs for event in world.audit.events} == {(CONTRACT, CHAMPION)}


def test_what_the_audit_log_cannot_hold_is_not_rolled_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> AuditEvent:
        raise PlatformError("the audit log cannot be written")

    monkeypatch.setattr(world.audit, "append", full)
    with pytest.raises(PlatformError, match="audit log"):
        world.deploy()
    assert world.steps == []


def test_what_is_not_signed_is_denied_and_what_fails_is_recorded(world: World) -> None:
    world.run_error = ServiceFailed("churn did not become ready", hint="headway status")
    with pytest.raises(ServiceFailed):
        world.deploy()
    assert world.outcomes() == ["intended", "failed"]
    world.verify_error = NotSigned("the contract of churn is not signed by risk")
    with pytest.raises(NotSigned):
        world.deploy()
    assert world.outcomes() == ["intended", "failed", "denied"]
    assert world.steps == ["follow", "serve", "run"]


def test_a_view_that_was_never_filled_is_filled_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cast(Any, world.at).service = lambda use_case: SimpleNamespace(stored=["filled", "empty"])
    monkeypatch.setattr(history, "backfill", lambda at, views, progress: world.steps.append(f"fill {views}"))
    world.deploy()
    assert world.steps[:2] == ["fill ['empty']", "follow"], "running streams feed it before anybody reads it"


def test_nothing_is_retired_where_it_is_unknown_who_reads_what() -> None:
    retired: list[object] = []

    def views(use_case: str, *, strict: bool) -> tuple[str, ...]:
        assert strict
        if use_case == "churn":
            raise NotSigned("its folder is gone")
        return ("other",)

    at = SimpleNamespace(
        service=lambda use_case: SimpleNamespace(stored=[SimpleNamespace(name="past")]),
        project=SimpleNamespace(use_cases=lambda: ["fraud", "churn"]),
        views=views,
        online=SimpleNamespace(retire=lambda names, keep: retired.append(names)),
    )
    module._retire(cast(Installation, at), "churn")
    assert retired == []
