"""What makes a version a production version: a signed proposal of one person and a signed approval of another.

The platform signs both after it verified the person's token, each over the hash of the version's own statement, so that
neither fits another version, other bytes, or an approval meant for another proposal. MLflow's tag only follows:
whoever sets it by hand has moved nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from headway.core.canonical import canonical
from headway.core.control import ControlStore
from headway.core.errors import CorruptState, Tampered
from headway.core.times import HOUR
from headway.governance.audit_event import Count, Hash
from headway.governance.keys import PROMOTION_SIGN
from headway.governance.signing import Envelope, Signer, TrustRoot

PROPOSAL_TYPE = "application/vnd.headway.promotion-proposal+json"
DECISION_TYPE = "application/vnd.headway.promotion-decision+json"
OPEN_FOR = 72 * HOUR
"""A proposal that nobody approved by then is void: what was true when it was made may not be any more."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One person's wish that a version may serve in production."""

    name: str
    version: str
    statement_sha256: Hash
    """The version's bytes, metrics and gates, as signed."""
    proposed_by: str
    proposed_at: Count
    """UTC microseconds."""
    expires: Count
    """UTC microseconds; it must be approved before."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What another person made of it; the newest decision counts."""

    proposal_sha256: Hash
    verdict: Literal["approved", "refused", "withdrawn"]
    """`withdrawn`: it was in production and is back in staging."""
    reason: str = ""
    decided_by: str
    decided_at: Count
    """UTC microseconds."""


class PromotionRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The two documents of a version, as the control store keeps them."""

    proposal: Envelope
    decision: Envelope | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a version stands, from documents that hold."""

    environment: str = "staging"
    """staging | production."""
    proposal: Proposal | None = None
    decision: Decision | None = None
    proposal_sha256: str = ""

    def open(self, now: int) -> bool:
        """Whether its proposal waits for a second person."""
        return self.proposal is not None and self.decision is None and now < self.proposal.expires


def record_key(name: str, version: str) -> str:
    """Return the control-store key of a version's record."""
    return f"promotion:{name}:{version}"


def read_record(store: ControlStore, name: str, version: str) -> tuple[PromotionRecord | None, int]:
    """Return a version's documents, unverified, and the number that the next writer must name."""
    found = store.get(record_key(name, version))
    if found is None:
        return None, 0
    try:
        return msgspec.json.decode(found.value, type=PromotionRecord), found.version
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CorruptState(
            f"the promotion record of {name} {version} cannot be read: {error}", hint="restore the control store"
        ) from error


def sign_proposal(proposal: Proposal, signer: Signer) -> Envelope:
    """Return the signed proposal."""
    return signer.sign(PROPOSAL_TYPE, canonical(msgspec.to_builtins(proposal)))


def sign_decision(decision: Decision, signer: Signer) -> Envelope:
    """Return the signed decision."""
    return signer.sign(DECISION_TYPE, canonical(msgspec.to_builtins(decision)))


def standing(
    record: PromotionRecord | None,
    trust: TrustRoot,
    *,
    name: str,
    version: str,
    statement_sha256: str,
    requested_by: str,
) -> Standing:
    """Return where a version stands.

    Raises:
        NotSigned: a document is not signed by a key trusted for `promotion:sign`.
        Tampered: a document does not hold, or is one of another version, other bytes, or one and the same person.
    """
    if record is None:
        return Standing()
    what = f"the promotion of {name} {version}"
    try:
        signed = trust.verify(record.proposal, PROPOSAL_TYPE, PROMOTION_SIGN)
        proposal = msgspec.json.decode(signed, type=Proposal)
        if record.decision is not None:
            decided = trust.verify(record.decision, DECISION_TYPE, PROMOTION_SIGN)
            decision = msgspec.json.decode(decided, type=Decision)
        else:
            decision = None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Tampered(f"{what} cannot be parsed: {error}") from error
    if (proposal.name, proposal.version) != (name, version):
        raise Tampered(f"{what} is that of {proposal.name} {proposal.version}")
    digest = record.proposal.payload_sha256
    if decision is not None:
        _check_decision(what, proposal, digest, decision, requested_by)
    if proposal.statement_sha256 != statement_sha256:
        raise Tampered(f"{what} was given to other bytes", hint="propose this version again")
    production = decision is not None and decision.verdict == "approved"
    return Standing(
        environment="production" if production else "staging",
        proposal=proposal,
        decision=decision,
        proposal_sha256=digest,
    )


def _check_decision(what: str, proposal: Proposal, digest: str, decision: Decision, requested_by: str) -> None:
    if decision.proposal_sha256 != digest:
        raise Tampered(f"{what}: the decision is about another proposal")
    if decision.verdict != "approved":
        return
    if decision.decided_by in (proposal.proposed_by, requested_by):
        raise Tampered(f"{what} was approved by {decision.decided_by}, who proposed or trained it")
    if not proposal.proposed_at <= decision.decided_at < proposal.expires:
        raise Tampered(f"{what} was approved before it was proposed or after that was void")
