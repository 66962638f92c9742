"""The acts of a promotion: propose, approve, refuse, withdraw; each by an approver or reviewer, each on record first.

Two different people move a version from staging to production: who proposed it cannot approve it, nor can who asked for
its training. The way back needs one: taking something out of production must not wait for a second person.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.errors import Conflict, Forbidden, HeadwayError, InvalidValue, NotSigned, Unauthenticated
from headway.core.times import format_time
from headway.core.types import Principal
from headway.governance.audit_event import AuditSink
from headway.governance.promotion import (
    OPEN_FOR,
    Decision,
    PromotionRecord,
    Proposal,
    Standing,
    read_record,
    record_key,
    sign_decision,
    sign_proposal,
    standing,
)
from headway.governance.roles import APPROVER, REVIEWER, Role
from headway.governance.signing import Signer, TrustRoot


@dataclass(frozen=True, kw_only=True)
class Promotable:
    """The version that is spoken of, from its verified statement."""

    name: str
    version: str
    statement_sha256: str
    requested_by: str
    """Who asked for its training."""

    @property
    def resource(self) -> str:
        """For the audit log."""
        return f"model:{self.name}/{self.version}"


class Promotions:
    """Proposals and decisions in the control store."""

    def __init__(
        self, store: ControlStore, signer: Signer | None, trust: TrustRoot, audit: AuditSink, clock: Clock
    ) -> None:
        self._store = store
        self._signer = signer
        self._trust = trust
        self._audit = audit
        self._clock = clock

    def standing(self, of: Promotable) -> Standing:
        """Return where a version stands; NotSigned or Tampered where its documents do not hold."""
        return self._read(of)[0]

    def require_production(self, of: Promotable) -> None:
        """Raise NotSigned unless two people brought exactly this version to production."""
        if self.standing(of).environment != "production":
            raise NotSigned(
                f"{of.name} {of.version} is in staging, and this installation serves production versions only",
                missing=("promotion",),
                hint=f"headway models promote {of.name} {of.version} --to production, by two people",
            )

    def promote(self, of: Promotable, principal: Principal) -> Standing:
        """Propose a version for production, or approve what another person proposed.

        Raises:
            Forbidden: not an approver; or this one proposed it, or asked for its training.
            Conflict: it is in production already, or somebody else was faster.
        """
        found, number = self._read(of)
        now = self._clock.now()
        if found.environment == "production":
            raise Conflict(f"{of.name} {of.version} is in production already", hint="headway models show")
        if not found.open(now):
            return self._propose(of, principal, number, now)
        assert found.proposal is not None
        self._allow(principal, "approve", of, (APPROVER,))
        if principal.sub in (found.proposal.proposed_by, of.requested_by):
            said = "proposed it" if principal.sub == found.proposal.proposed_by else "asked for its training"
            self._record(principal, "approve", of, f"denied: {said}")
            raise Forbidden(
                f"{principal.sub} {said} and cannot approve it",
                hint=f"another approver, until {format_time(found.proposal.expires)}",
            )
        return self._decide(of, principal, "approve", "approved", "")

    def refuse(self, of: Promotable, principal: Principal, reason: str) -> Standing:
        """Close an open proposal with a reason; by a reviewer or an approver."""
        self._allow(principal, "refuse", of, (REVIEWER, APPROVER))
        if not self.standing(of).open(self._clock.now()):
            raise Conflict(f"nobody proposed {of.name} {of.version}", hint="headway models show")
        return self._decide(of, principal, "refuse", "refused", _reason(reason))

    def withdraw(self, of: Promotable, principal: Principal, reason: str) -> Standing:
        """Move a version from production back to staging; one approver suffices."""
        self._allow(principal, "withdraw", of, (APPROVER,))
        if self.standing(of).environment != "production":
            raise Conflict(f"{of.name} {of.version} is in staging", hint="headway models show")
        return self._decide(of, principal, "withdraw", "withdrawn", _reason(reason))

    def _propose(self, of: Promotable, principal: Principal, number: int, now: int) -> Standing:
        self._allow(principal, "propose", of, (APPROVER,))
        proposal = Proposal(
            name=of.name,
            version=of.version,
            statement_sha256=of.statement_sha256,
            proposed_by=principal.sub,
            proposed_at=now,
            expires=now + OPEN_FOR,
        )
        record = PromotionRecord(proposal=sign_proposal(proposal, self._key()))
        return self._write(of, principal, "propose", record, number)

    def _decide(self, of: Promotable, principal: Principal, action: str, verdict: str, reason: str) -> Standing:
        record, number = read_record(self._store, of.name, of.version)
        if record is None:
            raise Conflict(f"nobody proposed {of.name} {of.version}", hint="headway models show")
        decision = msgspec.convert(
            {
                "proposal_sha256": record.proposal.payload_sha256,
                "verdict": verdict,
                "reason": reason,
                "decided_by": principal.sub,
                "decided_at": self._clock.now(),
            },
            Decision,
        )
        decided = PromotionRecord(proposal=record.proposal, decision=sign_decision(decision, self._key()))
        return self._write(of, principal, action, decided, number)

    def _write(
        self, of: Promotable, principal: Principal, action: str, record: PromotionRecord, number: int
    ) -> Standing:
        """Store documents that verify, recorded before and after; Conflict where another writer was first."""
        after = self._standing(of, record)
        newest = record.decision or record.proposal
        with self._act(principal, action, of, newest.payload_sha256):
            self._store.put(record_key(of.name, of.version), msgspec.json.encode(record), expected=number)
        return after

    def _read(self, of: Promotable) -> tuple[Standing, int]:
        record, number = read_record(self._store, of.name, of.version)
        return self._standing(of, record), number

    def _standing(self, of: Promotable, record: PromotionRecord | None) -> Standing:
        return standing(
            record,
            self._trust,
            name=of.name,
            version=of.version,
            statement_sha256=of.statement_sha256,
            requested_by=of.requested_by,
        )

    def _key(self) -> Signer:
        if self._signer is None:
            raise NotSigned("this process has no key for promotions", missing=("promotion:sign",), hint="headway up")
        return self._signer

    def _allow(self, principal: Principal, action: str, of: Promotable, roles: tuple[Role, ...]) -> None:
        if self._clock.now() >= principal.expires:
            raise Unauthenticated("the identity has expired", hint="headway login")
        if not any(role.held_by(principal) for role in roles):
            self._record(principal, action, of, "denied")
            roles[-1].require(principal)

    @contextmanager
    def _act(self, principal: Principal, action: str, of: Promotable, digest: str) -> Iterator[None]:
        self._record(principal, action, of, "intended", digest)
        try:
            yield
        except BaseException:
            with suppress(HeadwayError):  # why it failed says more
                self._record(principal, action, of, "failed", digest)
            raise
        self._record(principal, action, of, "done", digest)

    def _record(self, principal: Principal, action: str, of: Promotable, outcome: str, *digests: str) -> None:
        self._audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action=f"promotion.{action}",
            resource=of.resource,
            purpose=principal.purpose,
            outcome=outcome,
            refs=(of.statement_sha256, *digests),
        )


def _reason(text: str) -> str:
    if not text.strip() or len(text) > 500 or not text.isprintable():
        raise InvalidValue("reason", "1 to 500 printable characters", hint="say why: --reason '...'")
    return text
