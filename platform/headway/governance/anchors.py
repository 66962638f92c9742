"""Anchors of audit chains: per writer, the newest sequence number and hash, in a folder of their own."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from headway.core.canonical import canonical
from headway.core.errors import NotSigned, PlatformError, Tampered
from headway.governance.audit_event import Count, Hash
from headway.governance.files import private_folder, read_regular, write_atomic
from headway.governance.keys import AUDIT_ANCHOR
from headway.governance.signing import MAX_ENVELOPE, Envelope, Signer, TrustedKey, TrustRoot

ANCHOR_TYPE = "application/vnd.headway.audit-anchor+json"
ANCHOR_SUFFIX = ".anchor.json"


class Anchor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a chain ended when it was last written."""

    writer: str
    seq: Count
    hash: Hash
    time: Count
    """UTC microseconds."""


def anchors_folder(folder: Path) -> Path:
    """Return the second folder that belongs to a folder of chains."""
    return folder.with_name(f"{folder.name}-anchors")


class Anchors:
    """Reads and writes anchors; with a signer or a trust root, only signed ones are believed."""

    def __init__(self, folder: Path, *, signer: Signer | None = None, trust: TrustRoot | None = None) -> None:
        self.folder = folder
        self._signer = signer
        self._trust = _trust_with(signer, trust)

    def writers(self) -> list[str]:
        """Return the writers that have an anchor."""
        return sorted(path.name.removesuffix(ANCHOR_SUFFIX) for path in self.folder.glob(f"*{ANCHOR_SUFFIX}"))

    def read(self, writer: str) -> Anchor | None:
        """Return a writer's anchor, None if there is none; Tampered or NotSigned if it cannot be believed."""
        path = self.folder / f"{writer}{ANCHOR_SUFFIX}"
        try:
            envelope = Envelope.from_json(read_regular(path, limit=MAX_ENVELOPE))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PlatformError(f"the anchor {path.name} cannot be read: {error.strerror}") from error
        if self._trust is not None:
            try:
                payload = self._trust.verify(envelope, ANCHOR_TYPE, AUDIT_ANCHOR)
            except NotSigned as error:
                raise NotSigned(
                    f"the anchor {path.name} is not signed by a trusted key",
                    missing=error.missing,
                    hint="keep both folders and find out who wrote it",
                ) from error
        elif envelope.payloadType != ANCHOR_TYPE:
            raise Tampered(f"{path.name} is no anchor")
        else:
            payload = envelope.payload_bytes()
        try:
            anchor = msgspec.json.decode(payload, type=Anchor)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Tampered(f"the anchor {path.name} cannot be parsed: {error}") from error
        if anchor.writer != writer:
            raise Tampered(f"the anchor {path.name} belongs to {anchor.writer}")
        return anchor

    def write(self, anchor: Anchor) -> None:
        """Replace a writer's anchor durably; PlatformError if the disk refuses."""
        payload = canonical(msgspec.to_builtins(anchor))
        try:
            private_folder(self.folder)
            write_atomic(self.folder / f"{anchor.writer}{ANCHOR_SUFFIX}", self._envelope(payload).to_json())
        except OSError as error:
            raise PlatformError(f"an audit anchor cannot be written: {error}", hint="free disk space") from error

    def _envelope(self, payload: bytes) -> Envelope:
        if self._signer is not None:
            return self._signer.sign(ANCHOR_TYPE, payload)
        return Envelope(payloadType=ANCHOR_TYPE, payload=base64.b64encode(payload).decode(), signatures=())


def _trust_with(signer: Signer | None, trust: TrustRoot | None) -> TrustRoot | None:
    if signer is None or trust is not None:
        return trust

    own = TrustedKey(public=base64.b64encode(signer.public).decode(), roles=(AUDIT_ANCHOR,))
    return TrustRoot({signer.key_id: own})
