from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_laws
from hypothesis import strategies as st

from headway.core.canonical import sha256
from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import (
    Conflict,
    CorruptState,
    EvidenceError,
    Forbidden,
    InvalidValue,
    NotSigned,
    PlatformError,
    Tampered,
    Unauthenticated,
)
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.core.types import Principal
from headway.governance.audit import MemoryAudit
from headway.governance.keys import PROMOTION_SIGN, signer_for
from headway.governance.promotion import (
    OPEN_FOR,
    Decision,
    PromotionRecord,
    Proposal,
    read_record,
    record_key,
    sign_decision,
    sign_proposal,
    standing,
)
from headway.governance.promotions import Promotable, Promotions
from headway.governance.signing import Signer, TrustRoot
from tests.governance.conftest import NOW

THIRD = Promotable(name="fraud", version="3", statement_sha256=sha256(b"three"), requested_by="tess")
FOURTH = replace(THIRD, version="4", statement_sha256=sha256(b"four"))


def who(sub: str, *scopes: str, kind: str = "human", expires: int = NOW + 30 * DAY) -> Principal:
    granted = frozenset(scopes or ("registry:read", "registry:approve"))
    return Principal(sub=sub, kind=kind, scopes=granted, purpose="tests", expires=expires)


ANN, BOB, TESS = who("ann"), who("bob"), who("tess")


@pytest.fixture
def store() -> MemoryControlStore:
    return MemoryControlStore()


@pytest.fixture
def key(settings: Settings) -> Signer:
    return signer_for(settings, PROMOTION_SIGN)


@pytest.fixture
def acts(
    store: MemoryControlStore, key: Signer, trust: TrustRoot, audit: MemoryAudit, clock: ManualClock
) -> Promotions:
    return Promotions(store, key, trust, audit, clock)


def recorded(audit: MemoryAudit) -> list[tuple[str, str, str]]:
    return [(event.actor, event.action.removeprefix("promotion."), event.outcome) for event in audit.events]


def test_two_people_move_a_version_to_production_and_one_moves_it_back(acts: Promotions, audit: MemoryAudit) -> None:
    with pytest.raises(NotSigned, match="in staging"):
        acts.require_production(THIRD)
    proposed = acts.promote(THIRD, ANN)
    assert (proposed.environment, proposed.open(NOW)) == ("staging", True)
    with pytest.raises(NotSigned, match="in staging"):
        acts.require_production(THIRD)
    approved = acts.promote(THIRD, BOB)
    assert (approved.environment, approved.open(NOW)) == ("production", False)
    assert approved.proposal is not None
    assert approved.decision is not None
    assert (approved.proposal.proposed_by, approved.decision.decided_by) == ("ann", "bob")
    acts.require_production(THIRD)
    with pytest.raises(NotSigned):
        acts.require_production(FOURTH)
    with pytest.raises(Conflict, match="already"):
        acts.promote(THIRD, TESS)
    assert acts.withdraw(THIRD, BOB, "wrong labels").environment == "staging"
    with pytest.raises(NotSigned):
        acts.require_production(THIRD)
    assert recorded(audit) == [
        (actor, act, outcome)
        for actor, act in (("ann", "propose"), ("bob", "approve"), ("bob", "withdraw"))
        for outcome in ("intended", "done")
    ]
    assert audit.events[0].refs == (THIRD.statement_sha256, proposed.proposal_sha256)
    assert audit.events[0].resource == "model:fraud/3"
    assert len({event.refs[1] for event in audit.events}) == 3, "the hash of each document is on record"


@pytest.mark.parametrize("sub", ["ann", "tess"])
def test_who_proposed_or_trained_cannot_approve(acts: Promotions, audit: MemoryAudit, sub: str) -> None:
    acts.promote(THIRD, ANN)
    with pytest.raises(Forbidden, match="cannot approve"):
        acts.promote(THIRD, who(sub))
    assert recorded(audit)[-1][:2] == (sub, "approve")
    assert recorded(audit)[-1][2].startswith("denied")
    assert acts.standing(THIRD).environment == "staging"
    assert acts.promote(THIRD, BOB).environment == "production"


def test_who_trained_may_propose(acts: Promotions) -> None:
    acts.promote(THIRD, TESS)
    assert acts.promote(THIRD, ANN).environment == "production"


@pytest.mark.parametrize(
    "principal",
    [
        who("bob", "registry:read"),
        who("bob", "registry:review"),
        who("bob", "registry:write"),
        who("robot", "registry:approve", kind="ci"),
        who("robot", "registry:approve", kind="workload"),
    ],
)
def test_only_people_with_the_scope_propose_and_approve(
    acts: Promotions, audit: MemoryAudit, principal: Principal
) -> None:
    with pytest.raises(Forbidden, match=r"registry:approve|only human"):
        acts.promote(THIRD, principal)
    acts.promote(THIRD, ANN)
    with pytest.raises(Forbidden, match=r"registry:approve|only human"):
        acts.promote(THIRD, principal)
    assert [outcome for _, _, outcome in recorded(audit)] == ["denied", "intended", "done", "denied"]
    with pytest.raises(Unauthenticated):
        acts.promote(THIRD, who("bob", expires=NOW))


def test_a_proposal_is_void_after_its_bound_and_can_be_made_again(acts: Promotions, clock: ManualClock) -> None:
    acts.promote(THIRD, ANN)
    clock.advance(OPEN_FOR)
    again = acts.promote(THIRD, BOB)
    assert again.environment == "staging"
    assert again.proposal is not None
    assert again.proposal.proposed_by == "bob"
    clock.advance(OPEN_FOR - 1)
    assert acts.promote(THIRD, ANN).environment == "production"


def test_a_reviewer_refuses_with_a_reason(acts: Promotions) -> None:
    reviewer = who("rita", "registry:review")
    with pytest.raises(Conflict, match="nobody proposed"):
        acts.refuse(THIRD, reviewer, "no")
    acts.promote(THIRD, ANN)
    for reason in ("", " ", "x" * 501, "a\nb"):
        with pytest.raises(InvalidValue, match="reason"):
            acts.refuse(THIRD, reviewer, reason)
    with pytest.raises(Forbidden):
        acts.refuse(THIRD, who("eve", "registry:read"), "no")
    closed = acts.refuse(THIRD, reviewer, "segment 4 is worse")
    assert closed.decision is not None
    assert (closed.environment, closed.decision.reason) == ("staging", "segment 4 is worse")
    assert acts.promote(THIRD, BOB).open(NOW), "a new proposal"
    with pytest.raises(Conflict, match="in staging"):
        acts.withdraw(THIRD, ANN, "early")


def test_what_the_audit_log_cannot_hold_is_not_done(
    acts: Promotions, store: MemoryControlStore, audit: MemoryAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise PlatformError("the audit log cannot be written")

    monkeypatch.setattr(audit, "append", full)
    with pytest.raises(PlatformError):
        acts.promote(THIRD, ANN)
    assert store.get(record_key("fraud", "3")) is None


def test_of_two_approvers_at_once_one_is_told(
    acts: Promotions, store: MemoryControlStore, audit: MemoryAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts.promote(THIRD, ANN)
    real = store.put

    def slow(key: str, value: bytes, *, expected: int) -> int:
        monkeypatch.undo()
        acts.promote(THIRD, who("carl"))
        return real(key, value, expected=expected)

    monkeypatch.setattr(store, "put", slow)
    with pytest.raises(Conflict):
        acts.promote(THIRD, BOB)
    decision = acts.standing(THIRD).decision
    assert decision is not None
    assert decision.decided_by == "carl"
    assert recorded(audit)[-1] == ("bob", "approve", "failed")


def proposal(of: Promotable = THIRD, **changes: Any) -> Proposal:
    fields = {
        "name": of.name, "version": of.version, "statement_sha256": of.statement_sha256, "proposed_by": "ann",
        "proposed_at": NOW, "expires": NOW + OPEN_FOR, **changes,
    }  # fmt: skip
    return msgspec.convert(fields, Proposal)


def record(key: Signer, made: Proposal, **changes: Any) -> PromotionRecord:
    envelope = sign_proposal(made, key)
    fields = {
        "proposal_sha256": envelope.payload_sha256, "verdict": "approved", "decided_by": "bob", "decided_at": NOW + 1,
        **changes,
    }  # fmt: skip
    return PromotionRecord(proposal=envelope, decision=sign_decision(msgspec.convert(fields, Decision), key))


def test_forged_documents_are_refused(
    acts: Promotions, store: MemoryControlStore, key: Signer, settings: Settings
) -> None:
    risk = signer_for(settings, "contract:sign:risk")
    good = record(key, proposal())
    forged: dict[str, PromotionRecord] = {
        "another version's": record(key, proposal(FOURTH)),
        "other bytes": record(key, proposal(replace(THIRD, statement_sha256=sha256(b"other")))),
        "the same person twice": record(key, proposal(), decided_by="ann"),
        "the trainer": record(key, proposal(), decided_by="tess"),
        "too late": record(key, proposal(), decided_at=NOW + OPEN_FOR),
        "too early": record(key, proposal(), decided_at=NOW - 1),
        "another proposal's approval": record(key, proposal(), proposal_sha256=sha256(b"other")),
        "another role's key": record(risk, proposal()),
        "another role's approval": PromotionRecord(proposal=good.proposal, decision=record(risk, proposal()).decision),
        "a proposal for an approval": PromotionRecord(proposal=good.proposal, decision=good.proposal),
        "no signature": PromotionRecord(
            proposal=good.proposal,
            decision=msgspec.structs.replace(good.decision, signatures=()),  # type: ignore[type-var]  # is there
        ),
    }
    number = 0
    for what, documents in forged.items():
        number = store.put(record_key("fraud", "3"), msgspec.json.encode(documents), expected=number)
        with pytest.raises(EvidenceError):
            acts.require_production(THIRD)
        with pytest.raises(EvidenceError):
            acts.standing(THIRD)
        assert what
    number = store.put(record_key("fraud", "3"), msgspec.json.encode(good), expected=number)
    acts.require_production(THIRD)
    store.put(record_key("fraud", "3"), b"{", expected=number)
    with pytest.raises(CorruptState):
        acts.require_production(THIRD)


def test_without_the_key_promotions_are_read_only(
    store: MemoryControlStore, trust: TrustRoot, audit: MemoryAudit, clock: ManualClock
) -> None:
    keyless = Promotions(store, None, trust, audit, clock)
    assert keyless.standing(THIRD).environment == "staging"
    with pytest.raises(NotSigned, match="no key"):
        keyless.promote(THIRD, ANN)


PEOPLE = {name: who(name) for name in ("ann", "bob", "tess")}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["promote", "refuse", "withdraw", "wait"]),
        st.sampled_from(sorted(PEOPLE)),
        st.sampled_from([THIRD, FOURTH]),
    ),
    max_size=14,
)


@settings_of_laws(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS)
def test_nothing_is_ever_in_production_but_by_two_people_who_did_not_train_it(
    key: Signer, trust: TrustRoot, steps: list[tuple[str, str, Promotable]]
) -> None:
    store, clock = MemoryControlStore(), ManualClock(NOW)
    audit = MemoryAudit(clock)
    acts = Promotions(store, key, trust, audit, clock)
    proposer: dict[str, tuple[str, int]] = {}
    production: dict[str, bool] = {}
    for act, sub, of in steps:
        version, principal, now = of.version, PEOPLE[sub], clock.now()
        opened = version in proposer and now < proposer[version][1] + OPEN_FOR
        try:
            if act == "wait":
                clock.advance(OPEN_FOR // 2)
            elif act == "promote":
                acts.promote(of, principal)
                if opened:
                    assert sub not in (proposer.pop(version)[0], "tess")
                    production[version] = True
                else:
                    assert not production.get(version)
                    proposer[version] = (sub, now)
            elif act == "refuse":
                acts.refuse(of, principal, "no")
                assert opened
                del proposer[version]
            else:
                acts.withdraw(of, principal, "no")
                assert production.pop(version)
        except (Forbidden, Conflict):
            if act == "promote":
                assert production.get(version) or (opened and sub in (proposer[version][0], "tess"))
            elif act == "refuse":
                assert not opened
            else:
                assert not production.get(version)
        for other in (THIRD, FOURTH):
            found, _ = read_record(store, other.name, other.version)
            facts = {
                "name": other.name, "version": other.version, "statement_sha256": other.statement_sha256,
                "requested_by": other.requested_by,
            }  # fmt: skip
            assert (standing(found, trust, **facts).environment == "production") == bool(production.get(other.version))
    assert len(audit.events) == sum(event.outcome in ("intended", "done") for event in audit.events) + sum(
        event.outcome.startswith("denied") for event in audit.events
    )


def test_a_tampered_envelope_is_refused(key: Signer, trust: TrustRoot) -> None:
    made = record(key, proposal())
    later = sign_proposal(proposal(expires=NOW + 9 * OPEN_FOR), key)
    mixed = PromotionRecord(
        proposal=msgspec.structs.replace(made.proposal, payload=later.payload), decision=made.decision
    )
    with pytest.raises(Tampered):
        standing(mixed, trust, name="fraud", version="3", statement_sha256=THIRD.statement_sha256, requested_by="tess")
