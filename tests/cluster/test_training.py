from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster import training
from headway.cluster.compose import Installation
from headway.cluster.training import make_champion
from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import Conflict, PlatformError
from headway.core.routing import VersionRef, read_routing
from headway.core.types import Principal
from headway.governance.audit_event import AuditEvent, MemoryAudit

ANN = Principal(sub="ann", kind="human", scopes=frozenset({"rollout:churn"}), purpose="tests", expires=2**62)


def version(number: str) -> VersionRef:
    return VersionRef(version=number, path=f"/models/churn/{number}", statement_sha256=number * 64)


class Aliases:
    """A registry that remembers what it was told, and at which event."""

    def __init__(self, audit: MemoryAudit) -> None:
        self.said: list[tuple[str, str]] = []
        self.audit = audit

    def alias(self, name: str, alias: str, version: str, principal: Principal) -> None:
        assert self.audit.events[-1].outcome.startswith("generation"), "aliases follow the routing record"
        self.said.append((alias, version))


class World:
    """What a promotion needs of an installation."""

    def __init__(self) -> None:
        self.audit = MemoryAudit()
        self.control = MemoryControlStore()
        self.registry = Aliases(self.audit)
        self.at = cast(
            Installation,
            SimpleNamespace(
                audit=self.audit,
                control=self.control,
                registry=self.registry,
                clock=ManualClock(),
                settings=SimpleNamespace(require_production=False),
                workload=lambda sub, scopes, purpose: ANN,
            ),
        )

    def acts(self) -> list[tuple[str, str, str, tuple[str, ...]]]:
        return [(event.action, event.resource, event.outcome, event.refs) for event in self.audit.events]


@pytest.fixture
def world() -> World:
    return World()


def test_a_promotion_is_audited_before_and_after(world: World) -> None:
    make_champion(world.at, "churn", version("1"), ANN, "first")
    routing = make_champion(world.at, "churn", version("2"), ANN, "better")
    assert routing.generation == 2
    assert world.acts() == [
        ("rollout.promote", f"churn/{number}", outcome, (number * 64,))
        for number in "12"
        for outcome in ("intended", f"generation {number}")
    ]
    assert world.registry.said == [("champion", "1"), ("champion", "2"), ("previous", "1")]


def test_what_the_audit_log_cannot_hold_is_not_promoted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> AuditEvent:
        raise PlatformError("the audit log cannot be written")

    monkeypatch.setattr(world.audit, "append", full)
    with pytest.raises(PlatformError, match="audit log"):
        make_champion(world.at, "churn", version("1"), ANN, "first")
    assert read_routing(world.control, "churn").champion is None
    assert world.registry.said == []


def test_a_promotion_that_failed_is_recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any, **__: Any) -> None:
        raise Conflict("the routing record of churn keeps changing")

    monkeypatch.setattr(training, "promote", busy)
    with pytest.raises(Conflict):
        make_champion(world.at, "churn", version("1"), ANN, "first")
    assert [outcome for _, _, outcome, _ in world.acts()] == ["intended", "failed"]
