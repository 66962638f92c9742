"""Ed25519 signatures in DSSE envelopes, and the trust root that says which key may sign what.

The payload type is part of what is signed (DSSE's pre-authentication encoding), so a signature on a contract can never
be passed off as one on a model. A key signs only for the roles that the trust root gives it. Whatever goes wrong while
an envelope is taken apart is a refusal: there is no third outcome.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from headway.core.errors import CorruptState, HeadwayError, NotSigned, Tampered
from headway.governance.files import sync_folder, write_atomic

MAX_ENVELOPE = 4 * 2**20
"""Bytes; a larger envelope is refused unread."""
_MAX_TRUST_ROOT = 2**20


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signature over the envelope's type and payload."""

    keyid: str
    sig: str
    """Base64."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """DSSE v1: a typed payload and its signatures."""

    payloadType: str
    payload: str
    """Base64."""
    signatures: tuple[Signature, ...]

    @classmethod
    def from_json(cls, data: bytes) -> Envelope:
        """Return the envelope; Tampered when it cannot be parsed."""
        if len(data) > MAX_ENVELOPE:
            raise Tampered(f"a signed envelope is larger than {MAX_ENVELOPE} bytes")
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise Tampered(f"a signed envelope cannot be parsed: {error}") from error

    def to_json(self) -> bytes:
        """Return compact JSON."""
        return msgspec.json.encode(self)

    def payload_bytes(self) -> bytes:
        """Return the payload, unverified; Tampered when it is not base64."""
        try:
            return base64.b64decode(self.payload, validate=True)
        except ValueError as error:
            raise Tampered(f"the payload of a signed envelope is not base64: {error}") from error

    @property
    def payload_sha256(self) -> str:
        """Hash of the payload: pins exactly this content."""
        return hashlib.sha256(self.payload_bytes()).hexdigest()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's PAE: the unambiguous bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(public: bytes) -> str:
    """Return a key's name: the first 16 bytes of the SHA-256 of its raw public half, in hex."""
    return hashlib.sha256(public).hexdigest()[:32]


def generate_key(path: Path) -> str:
    """Write a new private key (0600, never over an existing one) and return its key id."""
    key = Ed25519PrivateKey.generate()
    write_key(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key_id(_raw(key.public_key()))


def write_key(path: Path, pem: bytes) -> None:
    """Create a key file that only its owner can read, whole or not at all; FileExistsError rather than overwrite."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        write_atomic(temporary, pem)
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_key(path: Path) -> bytes:
    """Return the PEM of a private key; CorruptState if it is missing or others can read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(2**16)
    except OSError as error:
        raise CorruptState(
            f"no private key at {path}: {error.strerror}", hint="headway up makes development keys"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise CorruptState(f"others can read the private key {path}", hint=f"replace the key, then chmod 600 {path}")
    return pem


class Signer:
    """Signs with one private key file."""

    def __init__(self, path: Path) -> None:
        try:
            key = load_pem_private_key(read_key(path), password=None)
        except (ValueError, TypeError) as error:
            raise CorruptState(f"{path} is not a private key: {error}", hint="restore it from its backup") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise CorruptState(
                f"{path} is not an Ed25519 key", hint="make one with headway.governance.signing.generate_key"
            )
        self._key = key
        self.public = _raw(key.public_key())
        self.key_id = key_id(self.public)

    def sign(self, payload_type: str, payload: bytes) -> Envelope:
        """Return a signed envelope."""
        signature = self._key.sign(pre_authentication_encoding(payload_type, payload))
        return Envelope(
            payloadType=payload_type,
            payload=base64.b64encode(payload).decode(),
            signatures=(Signature(keyid=self.key_id, sig=base64.b64encode(signature).decode()),),
        )


class TrustedKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A public key and what it may sign."""

    public: str
    """Base64 of the 32 raw bytes."""
    roles: tuple[str, ...]
    """`model:sign`, `contract:sign:<role>`, `audit:anchor`, `promotion:sign`."""
    revoked: bool = False
    """Whether nothing that it signed is believed any more; it stays listed so that refusals can say so."""


class _TrustFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keys: dict[str, TrustedKey]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A payload whose signature holds."""

    payload: bytes
    key_id: str


class TrustRoot:
    """The keys that are believed, and for what."""

    def __init__(self, keys: Mapping[str, TrustedKey]) -> None:
        self.keys = dict(keys)
        self._public: dict[str, Ed25519PublicKey] = {}
        for name, key in self.keys.items():
            try:
                raw = base64.b64decode(key.public, validate=True)
                self._public[name] = Ed25519PublicKey.from_public_bytes(raw)
            except ValueError as error:
                raise CorruptState(
                    f"the trust root's key {name} is no Ed25519 public key", hint="restore it"
                ) from error
            if key_id(raw) != name:
                raise CorruptState(f"the trust root names {name} a key that is {key_id(raw)}", hint="restore it")

    @classmethod
    def load(cls, path: Path) -> TrustRoot:
        """Read a trust root; CorruptState if it is missing, malformed, or writable by others."""
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_MAX_TRUST_ROOT)
        except OSError as error:
            hint = "headway up makes the development one; HEADWAY_TRUST_ROOT names another"
            raise CorruptState(f"no trust root at {path}: {error.strerror}", hint=hint) from error
        if stat.S_IMODE(mode) & 0o022:
            raise CorruptState(f"others can write the trust root {path}", hint="check its keys, then chmod go-w")
        try:
            return cls(msgspec.json.decode(data, type=_TrustFile).keys)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise CorruptState(f"the trust root {path} cannot be parsed: {error}", hint="restore it") from error

    def to_json(self) -> bytes:
        """Return the file's content."""
        return msgspec.json.format(msgspec.json.encode(_TrustFile(keys=dict(sorted(self.keys.items())))), indent=2)

    def verify(self, envelope: Envelope, payload_type: str, role: str) -> bytes:
        """Return the payload if a key trusted for `role` signed it as `payload_type`.

        Raises:
            NotSigned: no signature by a key that has the role.
            Tampered: the type differs, or such a signature does not hold.
        """
        return self.verify_signed(envelope, payload_type, role).payload

    def verify_signed(self, envelope: Envelope, payload_type: str, role: str) -> Verified:
        """Do as `verify`, and say which key signed."""
        try:
            return self._verify(envelope, payload_type, role)
        except HeadwayError:
            raise
        except Exception as error:
            raise Tampered(f"a signed envelope cannot be verified: {error}") from error

    def _verify(self, envelope: Envelope, payload_type: str, role: str) -> Verified:
        if envelope.payloadType != payload_type:
            raise Tampered(f"signed as {envelope.payloadType!r}, not as {payload_type!r}")
        payload = envelope.payload_bytes()
        signed = pre_authentication_encoding(payload_type, payload)
        believed = [s for s in envelope.signatures if s.keyid in self.keys and role in self.keys[s.keyid].roles]
        for signature in believed:
            if self.keys[signature.keyid].revoked:
                raise NotSigned(
                    f"signed by {signature.keyid}, a key that was revoked", missing=(role,), hint="sign it anew"
                )
        if not believed:
            raise NotSigned(
                f"no signature by a key trusted for {role}", missing=(role,), hint="sign it with such a key"
            )
        for signature in believed:
            try:
                self._public[signature.keyid].verify(base64.b64decode(signature.sig, validate=True), signed)
            except (InvalidSignature, ValueError) as error:
                raise Tampered(f"the signature of {signature.keyid} for {role} does not hold") from error
        return Verified(payload=payload, key_id=believed[0].keyid)


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
