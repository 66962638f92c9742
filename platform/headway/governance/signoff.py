"""Sign-offs: one signed envelope per role over the hash of a contract, in `contract.signatures.json` beside it.

A signature names contract, hash and role in what is signed, so it cannot be moved to another contract, another wording
or another role. A key signs only for roles that the trust root gives it, whatever the file says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from headway.core.canonical import canonical
from headway.core.clock import Clock
from headway.core.errors import EvidenceError, HeadwayError, InvalidValue, NotSigned, Tampered, Unauthenticated
from headway.core.types import Principal
from headway.governance.audit_event import AuditSink
from headway.governance.contract import LoadedContract, load_contract
from headway.governance.files import PUBLIC, locked, read_regular, write_atomic
from headway.governance.keys import contract_role
from headway.governance.signing import MAX_ENVELOPE, Envelope, Signer, TrustRoot

SIGNATURES = "contract.signatures.json"
PAYLOAD_TYPE = "application/vnd.headway.contract-signoff+json"


class SignoffPayload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a role signs."""

    contract: str
    """Use case."""
    sha256: str
    """Hash of the contract's canonical form."""
    role: str
    signed_by: str
    """Subject who signed."""
    signed_at: int
    """UTC microseconds."""


class _SignatureFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    signatures: dict[str, Envelope]
    """Role → envelope."""


@dataclass(frozen=True, kw_only=True)
class Signoff:
    """Who signed the contract as it is now."""

    sha256: str
    signed: dict[str, str]
    """Role → key id."""
    missing: tuple[str, ...]
    """Roles without a valid signature on this content."""
    altered: tuple[str, ...] = ()
    """Those of `missing` that signed another content: the contract changed after they signed."""
    refused: dict[str, str] = field(default_factory=dict)
    """Role → why its signature is not believed."""

    @property
    def complete(self) -> bool:
        """Whether every role signed and nothing is suspicious."""
        return not self.missing and not self.refused


def sign(  # the order is agreed with every caller
    path: Path, role: str, signer: Signer, principal: Principal, clock: Clock, audit: AuditSink
) -> Path:
    """Sign the contract at `path` for `role` and return the signature file; other roles' signatures stay.

    Raises:
        Forbidden: the principal lacks `contract:sign:<role>`.
        InvalidValue: the contract does not ask for this role.
    """
    loaded = load_contract(path)
    resource = f"contract:{loaded.contract.name}"

    def record(outcome: str) -> None:
        audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action=contract_role(role),
            resource=resource,
            purpose=principal.purpose,
            outcome=outcome,
            refs=(loaded.sha256,),
        )

    if role not in loaded.contract.signoff:
        raise InvalidValue(
            "role", f"{role!r} does not sign this contract", hint=f"one of {', '.join(loaded.contract.signoff)}"
        )
    if clock.now() >= principal.expires:
        raise Unauthenticated("the identity has expired", hint="headway login")
    try:
        principal.require("contract:sign", role)
    except HeadwayError:
        record("denied")
        raise
    payload = SignoffPayload(
        contract=loaded.contract.name,
        sha256=loaded.sha256,
        role=role,
        signed_by=principal.sub,
        signed_at=clock.now(),
    )
    envelope = signer.sign(PAYLOAD_TYPE, canonical(msgspec.to_builtins(payload)))
    target = path.with_name(SIGNATURES)
    with locked(path.parent):
        signatures = {**_read(target), role: envelope}
        content = msgspec.json.encode(_SignatureFile(signatures=dict(sorted(signatures.items()))))
        record("done")
        write_atomic(target, msgspec.json.format(content, indent=2) + b"\n", mode=PUBLIC)
    return target


def status(path: Path, trust: TrustRoot) -> Signoff:
    """Return who signed the contract as it is now; only an unreadable file is an error."""
    return _status(load_contract(path), trust)


def require_signed(path: Path, trust: TrustRoot, *, name: str | None = None) -> LoadedContract:
    """Return the contract if every role it names signed exactly this content.

    With `name`, it must also be the contract of that use case.

    Raises:
        Tampered: it was altered after signing, or a signature does not hold.
        NotSigned: roles are missing; `missing` names them.
    """
    loaded = load_contract(path, name=name)
    found = _status(loaded, trust)
    what = f"the contract of {loaded.contract.name}"
    if found.altered:
        roles = ", ".join(found.altered)
        raise Tampered(
            f"{what} was altered after {roles} signed it",
            hint=f"restore it, or let {roles} sign again: headway contract sign",
        )
    if found.refused:
        reasons = "; ".join(f"{role}: {reason}" for role, reason in sorted(found.refused.items()))
        raise Tampered(f"{what} carries signatures that do not hold ({reasons})", hint="headway contract sign")
    if found.missing:
        raise NotSigned(
            f"{what} is not signed by {', '.join(found.missing)}",
            missing=found.missing,
            hint=f"headway contract sign {loaded.contract.name} --role {found.missing[0]}",
        )
    return loaded


def _status(loaded: LoadedContract, trust: TrustRoot) -> Signoff:
    signatures = _read(loaded.path.with_name(SIGNATURES))
    signed: dict[str, str] = {}
    altered: list[str] = []
    refused: dict[str, str] = {}
    for role in loaded.contract.signoff:
        envelope = signatures.pop(role, None)
        if envelope is None:
            continue
        try:
            verified = trust.verify_signed(envelope, PAYLOAD_TYPE, contract_role(role))
            payload = msgspec.json.decode(verified.payload, type=SignoffPayload)
        except (EvidenceError, msgspec.MsgspecError, UnicodeError) as error:
            refused[role] = error.message if isinstance(error, HeadwayError) else f"cannot be parsed: {error}"
            continue
        if payload.role != role or payload.contract != loaded.contract.name:
            refused[role] = f"signed for {payload.role} on {payload.contract}"
        elif payload.sha256 != loaded.sha256:
            altered.append(role)
        else:
            signed[role] = verified.key_id
    missing = tuple(role for role in loaded.contract.signoff if role not in signed)
    return Signoff(sha256=loaded.sha256, signed=signed, missing=missing, altered=tuple(altered), refused=refused)


def _read(path: Path) -> dict[str, Envelope]:
    try:
        data = read_regular(path, limit=MAX_ENVELOPE)
    except FileNotFoundError:
        return {}
    try:
        return dict(msgspec.json.decode(data, type=_SignatureFile).signatures)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Tampered(f"{path.name} cannot be parsed: {error}", hint="restore it from version control") from error
