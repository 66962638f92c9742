"""Verifies tokens and turns them into principals; nothing else in the platform reads a token.

Rules (INTERFACES §4): a known issuer, its one pinned algorithm, a known key, our audience, at most 15 minutes from
`iat` to `exp`, not issued in the future, every claim of the right type. `jku`, `jwk` and `x5u` headers are never looked
at. A verified token is remembered by its digest until it expires, because a signature costs far more than a hash.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import msgspec

from headway.core.clock import Clock
from headway.core.errors import CorruptState, InvalidValue, Unauthenticated
from headway.core.settings import Settings
from headway.core.times import SECOND
from headway.core.types import Principal
from headway.governance.claims import AUDIENCE, MAX_LIFETIME_S, TokenClaims, check_scope
from headway.governance.jwks import JwksSource, KeySet, RemoteJwks, parse_jwks, sources

MAX_TOKEN = 8 * 1024
"""Characters; a longer token is refused unread."""
_CACHE = 4096
_SKEW_S = 5
"""Seconds by which an issuer's clock may run ahead of ours."""
_HINT = "get a fresh token: headway login or headway token"
_TYPES = (None, "JWT", "at+jwt")
_RECHECK = SECOND
"""How long a token that verified is taken without asking whether its key still stands."""


class TokenVerifier:
    """Verifies tokens of the given issuers; safe to share between threads."""

    def __init__(
        self,
        issuers: Mapping[str, JwksSource],
        clock: Clock,
        audience: str = AUDIENCE,
        *,
        algorithms: Mapping[str, str] | None = None,
    ) -> None:
        self._sources = dict(issuers)
        self._clock = clock
        self._audience = audience
        self._pinned = dict(algorithms or {})
        self._parsed: dict[str, tuple[object, KeySet]] = {}
        self._cache: OrderedDict[bytes, _Known] = OrderedDict()
        self._lock = threading.Lock()
        self._jws = jwt.PyJWS(algorithms=["ES256", "RS256", "EdDSA"])

    def close(self) -> None:
        """Stop fetching keys."""
        for source in self._sources.values():
            if isinstance(source, RemoteJwks):
                source.close()

    def verify(self, token: str) -> Principal:
        """Return who the token speaks for.

        Raises:
            Unauthenticated: it does not verify; the message says why, never what the token holds.
            Unavailable: a remote issuer's keys were not fetched yet.
        """
        if not isinstance(token, str) or not token or len(token) > MAX_TOKEN or not token.isascii():
            raise _refused("missing, too long or not ASCII")
        digest = hashlib.sha256(token.encode()).digest()
        now = self._clock.now()
        with self._lock:
            known = self._cache.get(digest)
            if known is not None:
                self._cache.move_to_end(digest)
        if known is None:
            known = self._verify(token)
            with self._lock:
                self._cache[digest] = known
                while len(self._cache) > _CACHE:
                    self._cache.popitem(last=False)
        if now >= known.principal.expires:
            with self._lock:
                self._cache.pop(digest, None)
            raise _refused("expired")
        if now - known.checked > _RECHECK:
            if known.kid not in self._keys(known.issuer).keys:
                with self._lock:
                    self._cache.pop(digest, None)
                raise _refused("its key was withdrawn")
            known.checked = now
        return known.principal

    def _verify(self, token: str) -> _Known:
        try:
            header = jwt.get_unverified_header(token)
            issuer = msgspec.json.decode(_payload(token), type=_Issuer).iss
        except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _refused("not a token") from error
        keys = self._keys(issuer)
        kid = header.get("kid")
        if header.get("alg") != keys.algorithm:
            raise _refused(f"its issuer signs with {keys.algorithm}")
        if "crit" in header or "b64" in header or header.get("typ") not in _TYPES:
            raise _refused("its header asks for an extension")
        if not isinstance(kid, str) or kid not in keys.keys:
            source = self._sources[issuer]
            if isinstance(source, RemoteJwks):
                source.unknown_kid()
            raise _refused("signed by an unknown key")
        try:
            payload = self._jws.decode(token, key=keys.keys[kid], algorithms=[keys.algorithm])
            claims = msgspec.json.decode(payload, type=TokenClaims)
        except jwt.PyJWTError as error:
            raise _refused("the signature does not hold") from error
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _refused(f"a claim is missing or wrong: {error}") from error
        return _Known(self._principal(claims, issuer), issuer, kid, self._clock.now())

    def _principal(self, claims: TokenClaims, issuer: str) -> Principal:
        now_s = self._clock.now() / SECOND
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if claims.iss != issuer or self._audience not in audiences:
            raise _refused(f"not issued for {self._audience}")
        if not 0 < claims.exp - claims.iat <= MAX_LIFETIME_S:
            raise _refused(f"its lifetime is not 1 to {MAX_LIFETIME_S} s")
        if claims.iat > now_s + _SKEW_S or (claims.nbf is not None and claims.nbf > now_s + _SKEW_S):
            raise _refused("issued in the future")
        if now_s >= claims.exp:
            raise _refused("expired")
        if not claims.sub.isprintable() or not claims.purpose.isprintable():
            raise _refused("a claim holds control characters")
        try:
            scopes = frozenset(check_scope(scope) for scope in claims.scope.split(" ") if scope)
        except InvalidValue as error:
            raise _refused("a scope is malformed") from error
        # a subject is unique per issuer only, and quotas, keys and evidence go by it
        sub = claims.sub if len(self._sources) == 1 else f"{issuer}#{claims.sub}"
        return Principal(sub=sub, kind=claims.kind, scopes=scopes, purpose=claims.purpose, expires=claims.exp * SECOND)

    def _keys(self, issuer: str) -> KeySet:
        source = self._sources.get(issuer)
        if source is None:
            raise _refused("its issuer is not trusted")
        jwks = source() if callable(source) else source
        parsed = self._parsed.get(issuer)
        if parsed is None or parsed[0] is not jwks:
            try:
                keys = parse_jwks(jwks, algorithm=self._pinned.get(issuer))
            except CorruptState as error:
                raise _refused(f"the keys of its issuer cannot be used: {error}") from error
            self._pinned.setdefault(issuer, keys.algorithm)
            parsed = self._parsed[issuer] = (jwks, keys)
        return parsed[1]


@dataclass(slots=True)
class _Known:
    """A token that verified."""

    principal: Principal
    issuer: str
    kid: str
    checked: int
    """UTC microseconds, when its key was last seen among the issuer's."""


class _Issuer(msgspec.Struct, frozen=True):
    iss: str


def _payload(token: str) -> bytes:
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("not three parts")
    return jwt.utils.base64url_decode(parts[1])


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"the token is refused: {why}", hint=_HINT)


def verifier_from(settings: Settings, clock: Clock, *, algorithms: Mapping[str, str] | None = None) -> TokenVerifier:
    """Return the verifier of an installation: its configured providers, else the embedded issuer of `home`."""
    issuers: dict[str, Any] = sources(settings, clock)
    return TokenVerifier(issuers, clock, algorithms=algorithms)
