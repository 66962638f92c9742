"""Which private key signs for a role, and the development keys of an embedded platform.

Development keys lie beside the state they protect, so they prove the mechanism and not the people; production sets
`HEADWAY_SIGNING_KEY` and `HEADWAY_TRUST_ROOT`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from headway.core.errors import InvalidValue, NotFound
from headway.core.settings import Settings
from headway.governance.files import locked, private_folder, write_atomic
from headway.governance.signing import Signer, TrustedKey, TrustRoot, generate_key

MODEL_SIGN = "model:sign"
AUDIT_ANCHOR = "audit:anchor"
PROMOTION_SIGN = "promotion:sign"
PLATFORM_ROLES = (MODEL_SIGN, AUDIT_ANCHOR, PROMOTION_SIGN)
"""Roles that every installation needs, beside `contract:sign:<role>` for the roles of its contracts."""


def contract_role(role: str) -> str:
    """Return the trust-root role and scope of a contract's sign-off role."""
    return f"contract:sign:{role}"


def development_keys(home: Path, roles: Iterable[str]) -> None:
    """Make one key per role under `home/keys` and trust each for its role in `home/trust.json`.

    Safe to repeat and to run twice at once: existing keys, and keys that somebody added to the trust root, stay.
    """
    folder = private_folder(home / "keys")
    trust_path = home / "trust.json"
    with locked(folder):
        trusted = dict(TrustRoot.load(trust_path).keys) if trust_path.exists() else {}
        for role in sorted({*roles, *PLATFORM_ROLES}):
            path = key_path(home, role)
            if not path.exists():
                generate_key(path)
            signer = Signer(path)
            known = trusted.get(signer.key_id)
            granted = {role, *(known.roles if known else ())}
            trusted[signer.key_id] = TrustedKey(
                public=base64.b64encode(signer.public).decode(),
                roles=tuple(sorted(granted)),
                revoked=known is not None and known.revoked,
            )
        content = TrustRoot(trusted).to_json()
        if not trust_path.exists() or trust_path.read_bytes() != content:
            write_atomic(trust_path, content)


def key_path(home: Path, role: str) -> Path:
    """Return where the development key of a role lies."""
    if not role or not all(part.replace("-", "").replace("_", "").isalnum() for part in role.split(":")):
        raise InvalidValue("role", f"{role!r} is not a role", hint="write model:sign or contract:sign:<role>")
    return home / "keys" / f"{role.replace(':', '.')}.pem"


def signer_for(settings: Settings, role: str) -> Signer:
    """Return the signer for a role; `HEADWAY_SIGNING_KEY` replaces the development key of `model:sign`."""
    if role == MODEL_SIGN and settings.signing_key:
        return Signer(Path(settings.signing_key))
    path = key_path(settings.home, role)
    if not path.exists():
        known = [item.stem.replace(".", ":") for item in path.parent.glob("*.pem")]
        raise NotFound("signing key for the role", role, known=known)
    return Signer(path)


def trust_root(settings: Settings) -> TrustRoot:
    """Return the keys this installation believes."""
    return TrustRoot.load(Path(settings.trust_root) if settings.trust_root else settings.home / "trust.json")
