"""Key sets of token issuers: parsed strictly, pinned to one algorithm, and fetched beside the requests, never in one.

The algorithm comes from the issuer's keys, not from the token, so `none`, HMAC with a public key and every other
confusion end before a signature is looked at.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from headway.core.clock import Clock
from headway.core.errors import CorruptState, Unavailable
from headway.core.settings import Settings
from headway.governance.files import read_regular

ALGORITHMS = ("ES256", "RS256", "EdDSA")
_KINDS = {("EC", "P-256"): "ES256", ("RSA", None): "RS256", ("OKP", "Ed25519"): "EdDSA"}
_MAX_BYTES = 2**18
_MAX_KEYS = 64
_MIN_RSA_BITS = 2048
_REFRESH_S = 300.0
_STALE_S = 24 * 3600.0
"""A key set older than this is no longer believed."""
_UNKNOWN_KID_S = 30.0
"""Least time between two fetches caused by unknown key ids."""
_FETCH_S = 5.0
_HINT = "check the issuer's jwks.json"

Jwks = Mapping[str, Any]
JwksSource = Jwks | Callable[[], Jwks]


@dataclass(frozen=True, kw_only=True)
class KeySet:
    """The usable keys of one issuer and the one algorithm they sign with."""

    algorithm: str
    keys: Mapping[str, Any] = field(repr=False)
    """Key id → public key."""


def parse_jwks(jwks: Jwks, *, algorithm: str | None = None) -> KeySet:
    """Return the keys of a set; with `algorithm`, keys made for something else are left out.

    Raises CorruptState for symmetric, private, unnamed, repeated or malformed keys, for an empty set, and, without
    `algorithm`, for keys that cannot be used or that mix algorithms.
    """
    entries = jwks.get("keys")
    if not isinstance(entries, list) or not entries or len(entries) > _MAX_KEYS:
        raise CorruptState(f"a key set must list 1 to {_MAX_KEYS} keys", hint=_HINT)
    pinned = algorithm
    keys: dict[str, Any] = {}
    for entry in entries:
        try:
            kid, own = _describe(entry)
            if own is None and pinned is None:
                raise ValueError(f"{entry['kty']!r} for {entry.get('alg')!r} is not one of {', '.join(ALGORITHMS)}")
            if pinned is not None and own != pinned:
                continue
            if kid in keys:
                raise ValueError(f"{kid} comes twice")
            if algorithm is not None and own != algorithm:
                raise ValueError(f"mixes {algorithm} and {own}: pin one algorithm per issuer")
            algorithm = own
            keys[kid] = _public_key(entry, str(own))
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptState(f"a key set holds an unusable key: {error}", hint=_HINT) from error
    if algorithm is None or not keys:
        raise CorruptState(f"a key set has no key for {algorithm}", hint=_HINT)
    return KeySet(algorithm=algorithm, keys=keys)


def _describe(entry: Any) -> tuple[str, str | None]:
    """Return a key's id and its algorithm, None where it is made for something that tokens are not signed with."""
    if not isinstance(entry, dict) or "d" in entry or "k" in entry:
        raise ValueError("not a public key")
    kid = entry["kid"]
    if not isinstance(kid, str) or not kid:
        raise ValueError("no key id")
    algorithm = _KINDS.get((entry["kty"], entry.get("crv")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return kid, None
    return kid, algorithm


def _public_key(entry: dict[str, Any], algorithm: str) -> Any:
    if algorithm == "ES256":
        return EllipticCurvePublicNumbers(_integer(entry["x"]), _integer(entry["y"]), SECP256R1()).public_key()
    if algorithm == "RS256":
        key = RSAPublicNumbers(_integer(entry["e"]), _integer(entry["n"])).public_key()
        if key.key_size < _MIN_RSA_BITS:
            raise ValueError(f"RSA with {key.key_size} bits")
        return key
    return Ed25519PublicKey.from_public_bytes(_bytes(entry["x"]))


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _integer(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")


class FileJwks:
    """The key set that the embedded issuer publishes in its folder; read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._value: Jwks = {}

    def __call__(self) -> Jwks:
        """Return the current key set; CorruptState if it cannot be read."""
        hint = "headway up starts the issuer and publishes its keys"
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                value = json.loads(read_regular(self._path, limit=_MAX_BYTES))
                if not isinstance(value, dict):
                    raise ValueError("not an object")
                self._value, self._seen = value, seen
        except (OSError, ValueError) as error:
            raise CorruptState(f"no key set of the issuer at {self._path}: {error}", hint=hint) from error
        return self._value


Fetch = Callable[[str], Mapping[str, Any]]


class RemoteJwks:
    """A provider's key set by OIDC discovery, refreshed by a thread; requests only ever read the newest copy."""

    def __init__(self, issuer: str, clock: Clock, *, fetch: Fetch | None = None, refresh_s: float = _REFRESH_S) -> None:
        self._issuer = issuer
        self._clock = clock
        self._fetch = fetch or fetch_json
        self._refresh_s = refresh_s
        self._value: Jwks | None = None
        self._fetched = 0.0
        self._asked = float("-inf")
        self._wake = threading.Event()
        self._ready = threading.Event()
        self._closed = False
        self.last_error = ""
        """Why the newest fetch failed; empty after a good one."""
        self._thread = threading.Thread(target=self._run, name="headway-jwks", daemon=True)
        self._thread.start()

    def __call__(self) -> Jwks:
        """Return the newest copy; Unavailable until the first fetch and once the copy is a day old."""
        value = self._value
        if value is None or self._clock.monotonic() - self._fetched > _STALE_S:
            raise Unavailable(f"no keys of {self._issuer}: {self.last_error or 'not fetched yet'}", retry_after_s=1.0)
        return value

    def unknown_kid(self) -> None:
        """Ask for an early refresh: a new key may have been published. Rate-limited, and never waited for."""
        now = self._clock.monotonic()
        if now - self._asked >= _UNKNOWN_KID_S:
            self._asked = now
            self._wake.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the first good fetch, at start-up only."""
        return self._ready.wait(timeout_s)

    def close(self) -> None:
        """Stop the thread."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=_FETCH_S * 3)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._value = self._discover()
                self._fetched = self._clock.monotonic()
                self.last_error = ""
                self._ready.set()
            except Exception as error:  # the thread outlives every kind of network failure; callers see last_error
                self.last_error = f"{type(error).__name__}: {error}"
            self._wake.wait(self._refresh_s if not self.last_error else min(self._refresh_s, 5.0))
            self._wake.clear()

    def _discover(self) -> Jwks:
        configuration = self._fetch(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if configuration.get("issuer") != self._issuer:
            raise ValueError(f"the provider calls itself {configuration.get('issuer')!r}")
        jwks = self._fetch(str(configuration["jwks_uri"]))
        if not isinstance(jwks.get("keys"), list):
            raise ValueError("the provider's key set lists no keys")
        return jwks


def fetch_json(url: str) -> Mapping[str, Any]:
    """Return a small JSON object fetched by https without following redirects."""
    import httpx

    if not url.startswith("https://"):
        raise ValueError(f"{url} is not https")
    with httpx.Client(timeout=_FETCH_S, follow_redirects=False) as client, client.stream("GET", url) as response:
        if response.status_code != 200:
            raise ValueError(f"{url} answered {response.status_code}")
        data = b""
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > _MAX_BYTES:
                raise ValueError(f"{url} answered more than {_MAX_BYTES} bytes")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"{url} is not an object")
    return value


def sources(settings: Settings, clock: Clock) -> dict[str, JwksSource]:
    """Return issuer → key set source: the configured providers, else the embedded issuer of `home`."""
    if settings.oidc_issuers:
        return {issuer: RemoteJwks(issuer, clock) for issuer in settings.oidc_issuers}
    source = FileJwks(settings.home / "issuer" / "jwks.json")
    issuer = source().get("issuer")
    if not isinstance(issuer, str):
        raise CorruptState("the embedded issuer's key set names no issuer", hint="headway up")
    return {issuer: source}
