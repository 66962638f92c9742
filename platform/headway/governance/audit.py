"""The audit log: one hash chain per writer, one line per governed act, and an anchor that knows how long the chain is.

An event carries the hash of the one before it, so nothing in the middle can change or vanish. The end of a chain has
no successor to protect it; the anchor in a second folder does: it holds the newest sequence number and hash, signed
where the log was given a signer. Appending first proves that the chain still ends where the anchor says, so that nobody
builds on a shortened or rewritten chain. Somebody who restores an older state of both folders, or holds the signing
key, is not caught here: that takes a witness outside the platform. What cannot be written is an error for the caller,
so governed acts fail closed.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headway.core.clock import Clock
from headway.core.errors import CorruptState, InvalidValue, PlatformError, Tampered
from headway.core.settings import Settings
from headway.governance.anchors import Anchor, Anchors, anchors_folder
from headway.governance.audit_event import AuditEvent, AuditSink, MemoryAudit, chain_event, parse_event
from headway.governance.audit_verify import SUFFIX, TORN, ChainProblem, ChainReport, verify_chains
from headway.governance.files import PRIVATE, private_folder, sync_folder, write_atomic
from headway.governance.keys import AUDIT_ANCHOR, key_path, signer_for, trust_root
from headway.governance.signing import Signer, TrustRoot

__all__ = [
    "AuditEvent",
    "AuditLog",
    "AuditSink",
    "ChainProblem",
    "ChainReport",
    "MemoryAudit",
    "audit_log",
    "verify_chains",
]

MAX_LINE = 2**16
_WRITER = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class AuditLog:
    """Appends to one writer's chain; threads and processes may share the writer."""

    def __init__(
        self,
        folder: Path,
        writer: str,
        clock: Clock,
        *,
        anchors: Path | None = None,
        signer: Signer | None = None,
        trust: TrustRoot | None = None,
    ) -> None:
        if _WRITER.fullmatch(writer) is None or writer.endswith(SUFFIX):
            raise InvalidValue("writer", f"{writer!r}", hint="lower-case letters, digits, dot, dash, underscore")
        self.folder = private_folder(folder)
        self.writer = writer
        self._clock = clock
        self._path = folder / f"{writer}{SUFFIX}"
        self._anchors = Anchors(anchors or anchors_folder(folder), signer=signer, trust=trust)

    def append(
        self,
        *,
        actor: str,
        kind: str,
        action: str,
        resource: str,
        purpose: str,
        outcome: str,
        refs: Sequence[str] = (),
    ) -> AuditEvent:
        """Append one event durably and return it.

        Raises:
            InvalidValue: a field is empty, too long or holds control characters.
            Tampered: the chain does not end where its anchor says.
            PlatformError: the disk refused the write; the act must not go on.
        """
        with self._locked() as handle:
            last = self._last(handle)
            event = chain_event(
                last,
                writer=self.writer,
                time=self._clock.now(),
                actor=actor,
                kind=kind,
                action=action,
                resource=resource,
                purpose=purpose,
                outcome=outcome,
                refs=tuple(refs),
            )
            self._write(handle, event.to_line())
            self._anchor(event)
        return event

    def _anchor(self, event: AuditEvent) -> None:
        self._anchors.write(Anchor(writer=self.writer, seq=event.seq, hash=event.hash, time=event.time))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                handle = os.open(self._path, flags, PRIVATE)
            except OSError as error:
                raise PlatformError(f"the audit log {self._path.name} cannot be opened: {error.strerror}") from error
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise Tampered(f"{self._path.name} is not a plain file")
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not _same_file(handle, self._path):
                    continue
                yield handle
                return
            finally:
                os.close(handle)

    def _last(self, handle: int) -> AuditEvent | None:
        """Return the chain's last event after proving that it is the one the anchor knows, or its one successor."""
        anchor = self._anchors.read(self.writer)
        line, torn = _tail(handle)
        last = None if line is None else parse_event(line, where=self._path.name)
        if not _continues(anchor, last):
            known = "nothing" if anchor is None else f"event {anchor.seq}"
            found = "no event" if last is None else f"event {last.seq}"
            raise Tampered(
                f"the audit chain {self._path.name} ends with {found}, its anchor knows {known}, and they do not agree",
                hint="keep both folders as they are and run: headway audit verify",
            )
        if last is not None and (anchor is None or last.seq > anchor.seq):
            self._anchor(last)
        if torn:
            self._set_aside(handle, torn)
        return last

    def _set_aside(self, handle: int, torn: bytes) -> None:
        """Keep the bytes of a write that a crash cut short and nobody was told of; end the chain before them."""
        name = f"{self.writer}.{self._clock.now()}.{os.urandom(3).hex()}{TORN}"
        write_atomic(self.folder / name, torn)
        os.ftruncate(handle, os.fstat(handle).st_size - len(torn))
        os.fsync(handle)

    def _write(self, handle: int, line: bytes) -> None:
        if len(line) > MAX_LINE:
            raise InvalidValue("refs", f"the event is larger than {MAX_LINE} bytes")
        size = os.fstat(handle).st_size
        try:
            written = os.write(handle, line)
            if written != len(line):
                raise OSError(f"{written} of {len(line)} bytes written")
            os.fsync(handle)
            if size == 0:
                sync_folder(self.folder)
        except OSError as error:
            os.ftruncate(handle, size)
            raise PlatformError(
                f"the audit log cannot be written: {error}", hint="free disk space; governed acts stop until then"
            ) from error


def _same_file(handle: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(handle)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _tail(handle: int) -> tuple[bytes | None, bytes]:
    """Return the last complete line (without newline) and the bytes after it."""
    size = os.fstat(handle).st_size
    start = max(0, size - 2 * MAX_LINE)
    data = os.pread(handle, size - start, start)
    complete, newline, torn = data.rpartition(b"\n")
    if not newline:
        if start:
            raise CorruptState("the end of an audit chain is not made of lines", hint="headway audit verify")
        return None, data
    return complete.rpartition(b"\n")[2], torn


def _continues(anchor: Anchor | None, last: AuditEvent | None) -> bool:
    """Whether the chain ends at the anchor, or one event after it (a crash between the two writes)."""
    if anchor is None:
        return last is None or last.seq == 0
    if last is None:
        return False
    if last.seq == anchor.seq:
        return last.hash == anchor.hash
    return last.seq == anchor.seq + 1 and last.prev == anchor.hash


def audit_log(settings: Settings, writer: str, clock: Clock) -> AuditLog:
    """Return a writer's log of an installation, its anchors signed where the anchor key is at hand."""
    folder = settings.home / "audit"
    if not key_path(settings.home, AUDIT_ANCHOR).exists():
        return AuditLog(folder, writer, clock)
    return AuditLog(folder, writer, clock, signer=signer_for(settings, AUDIT_ANCHOR), trust=trust_root(settings))
