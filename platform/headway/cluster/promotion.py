"""Moves versions between staging and production, and keeps others out of service where production is required."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headway.cluster.compose import Installation
from headway.core.errors import NotFound
from headway.core.routing import VersionRef
from headway.core.types import Principal
from headway.governance.keys import PROMOTION_SIGN, signer_for
from headway.governance.promotion import Standing
from headway.governance.promotions import Promotable, Promotions
from headway.governance.registered_version import RegisteredVersion
from headway.governance.statement import ModelStatement, read_statement, verify_version


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version whose files are as signed, and where it stands."""

    registered: RegisteredVersion
    statement: ModelStatement
    subject: Promotable
    standing: Standing


def promotions(at: Installation) -> Promotions:
    """Return the promotions of an installation; without the key, they can be read only."""
    try:
        signer = signer_for(at.settings, PROMOTION_SIGN)
    except NotFound:
        signer = None
    return Promotions(at.control, signer, at.trust, at.audit, at.clock)


def version_of(at: Installation, use_case: str, version: str, principal: Principal) -> Version:
    """Return a version by number or alias; NotSigned and Tampered where its files or its documents do not hold."""
    found = at.registry.resolve(at.project.require(use_case), version, principal)
    statement = verify_version(found.path, at.trust, name=use_case, version=found.version, clock=at.clock)
    subject = _subject(statement, read_statement(found.path).payload_sha256)
    return Version(registered=found, statement=statement, subject=subject, standing=promotions(at).standing(subject))


def promote(at: Installation, use_case: str, version: str, principal: Principal) -> Standing:
    """Propose a version for production, or approve another's proposal; the registry's tag follows."""
    subject = version_of(at, use_case, version, principal).subject
    after = promotions(at).promote(subject, principal)
    if after.environment == "production":
        _tag(at, subject, "production", principal)
    return after


def refuse(at: Installation, use_case: str, version: str, principal: Principal, reason: str) -> Standing:
    """Close an open proposal."""
    return promotions(at).refuse(version_of(at, use_case, version, principal).subject, principal, reason)


def withdraw(at: Installation, use_case: str, version: str, principal: Principal, reason: str) -> Standing:
    """Take a version back to staging; what serves goes on until it is rolled back."""
    subject = version_of(at, use_case, version, principal).subject
    after = promotions(at).withdraw(subject, principal, reason)
    _tag(at, subject, "staging", principal)
    return after


def require_production(at: Installation, use_case: str, ref: VersionRef) -> str:
    """Return in words where a version that is to serve stands.

    Raises NotSigned or Tampered where the installation serves production versions only and this is none.
    """
    if not at.settings.require_production:
        return "any signed version may serve: require_production is off"
    folder = Path(ref.path)
    statement = verify_version(
        folder, at.trust, name=use_case, version=ref.version, clock=at.clock, statement_sha256=ref.statement_sha256
    )
    promotions(at).require_production(_subject(statement, ref.statement_sha256))
    return "in production"


def _subject(statement: ModelStatement, statement_sha256: str) -> Promotable:
    return Promotable(
        name=statement.name,
        version=statement.version,
        statement_sha256=statement_sha256,
        requested_by=statement.requested_by,
    )


def _tag(at: Installation, subject: Promotable, environment: str, principal: Principal) -> None:
    """Let the registry's tag follow; written by a program, since people write nothing there."""
    worker = at.workload("headway-registry", ["registry:read", "registry:write"], principal.purpose)
    at.registry.move(subject.name, subject.version, environment, worker)
