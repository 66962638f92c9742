"""Issues the short-lived tokens of an embedded platform; production has its own provider (`HEADWAY_OIDC_ISSUERS`)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from headway.core.canonical import canonical
from headway.core.clock import Clock
from headway.core.errors import CorruptState, InvalidValue
from headway.core.ids import uuid7
from headway.core.times import SECOND
from headway.governance.claims import AUDIENCE, KINDS, MAX_LIFETIME_S, TokenClaims, check_scope
from headway.governance.files import PUBLIC, locked, private_folder, write_atomic
from headway.governance.signing import read_key, write_key

ALGORITHM = "ES256"
DEVELOPMENT_ISSUER = "http://headway.localhost/issuer"
"""`iss` of development tokens where the issuer's own address is not given: stable, though its port is not."""


class IssuerKey:
    """A P-256 key for ES256, in a file only its owner can read."""

    def __init__(self, path: Path) -> None:
        try:
            key = load_pem_private_key(read_key(path), password=None)
        except (ValueError, TypeError) as error:
            raise CorruptState(f"{path} is not a private key: {error}", hint="restore it from its backup") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise CorruptState(f"{path} is not a P-256 key", hint="make one with IssuerKey.generate")
        self.private = key
        numbers = key.public_key().public_numbers()
        point = {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
        self.kid = _base64url(hashlib.sha256(canonical(point)).digest())
        self.jwk: dict[str, str] = {**point, "kid": self.kid, "alg": ALGORITHM, "use": "sig"}

    @classmethod
    def generate(cls, path: Path) -> IssuerKey:
        """Write a new key (0600, never over an existing one) and return it."""
        key = ec.generate_private_key(ec.SECP256R1())
        write_key(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cls(path)


class TokenIssuer:
    """Signs tokens as one issuer."""

    def __init__(self, key_path: Path, issuer_url: str, clock: Clock) -> None:
        self._key = IssuerKey(key_path)
        self.issuer_url = issuer_url
        self._clock = clock

    def issue(self, sub: str, kind: str, scopes: Iterable[str], purpose: str, lifetime_s: int = MAX_LIFETIME_S) -> str:
        """Return a token of at most 15 minutes; InvalidValue names the claim that is wrong."""
        if not 1 <= lifetime_s <= MAX_LIFETIME_S:
            raise InvalidValue("lifetime_s", f"{lifetime_s} s", hint=f"tokens live 1 to {MAX_LIFETIME_S} s")
        known = next((name for name in KINDS if name == kind), None)
        if known is None:
            raise InvalidValue("kind", f"{kind!r}", hint=f"one of {', '.join(KINDS)}")
        for name, text in (("sub", sub), ("purpose", purpose)):
            if not text or not text.isprintable():
                raise InvalidValue(name, "must be printable and not empty")
        if isinstance(scopes, str):
            raise InvalidValue("scopes", "is one text", hint="give a list of scopes")
        now = self._clock.now()
        claims = TokenClaims(
            iss=self.issuer_url,
            sub=sub,
            aud=AUDIENCE,
            iat=now // SECOND,
            exp=now // SECOND + lifetime_s,
            jti=uuid7(now),
            kind=known,
            scope=" ".join(sorted({check_scope(scope) for scope in scopes})),
            purpose=purpose,
        )
        payload: dict[str, Any] = msgspec.to_builtins(claims)
        del payload["nbf"]
        return jwt.encode(payload, self._key.private, algorithm=ALGORITHM, headers={"kid": self._key.kid})

    def jwks(self) -> dict[str, Any]:
        """Return the public key set; `issuer` beside `keys` tells a local verifier whose keys these are."""
        return {"issuer": self.issuer_url, "keys": [dict(self._key.jwk)]}


def development_issuer(home: Path, clock: Clock, issuer_url: str = DEVELOPMENT_ISSUER) -> TokenIssuer:
    """Return the embedded issuer: its key in `home/issuer`, `jwks.json` beside it for verifiers. Safe to repeat."""
    folder = private_folder(home / "issuer")
    path = folder / "key.pem"
    with locked(folder):
        if not path.exists():
            IssuerKey.generate(path)
        issuer = TokenIssuer(path, issuer_url, clock)
        content = canonical(issuer.jwks())
        published = folder / "jwks.json"
        if not published.exists() or published.read_bytes() != content:
            write_atomic(published, content, mode=PUBLIC)
    return issuer


def _coordinate(value: int) -> str:
    return _base64url(value.to_bytes(32, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
