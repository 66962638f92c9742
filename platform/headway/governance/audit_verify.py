"""Proves that audit chains are whole: every line, every link, both ends, and nothing else in the folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headway.core.errors import HeadwayError
from headway.governance.anchors import Anchor, Anchors, anchors_folder
from headway.governance.audit_event import GENESIS, AuditEvent, parse_event
from headway.governance.files import open_regular
from headway.governance.signing import TrustRoot

SUFFIX = ".jsonl"
TORN = ".torn"
"""Files beside a chain that keep bytes of a write which a crash cut short."""


@dataclass(frozen=True, kw_only=True)
class ChainProblem:
    """One thing that does not hold."""

    file: str
    line: int
    """1-based; 0: the file as a whole."""
    what: str

    def __str__(self) -> str:
        """`writer.jsonl:3: what`."""
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class ChainReport:
    """What a verification found."""

    writers: int
    events: int
    problems: tuple[ChainProblem, ...]
    notes: tuple[str, ...] = ()
    """Leftovers of crashes: harmless, but worth knowing."""

    @property
    def ok(self) -> bool:
        """Whether every chain is whole."""
        return not self.problems


def verify_chains(folder: Path, *, anchors: Path | None = None, trust: TrustRoot | None = None) -> ChainReport:
    """Check every chain of a folder against its anchors; with `trust`, anchors must be signed for `audit:anchor`."""
    store = Anchors(anchors or anchors_folder(folder), trust=trust)
    problems: list[ChainProblem] = []
    notes: list[str] = []
    writers: list[str] = []
    events = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(TORN) and path.is_file() and not path.is_symlink():
            notes.append(f"{path.name}: bytes of a write that a crash cut short, {path.stat().st_size} bytes")
        elif path.name.startswith(".") or not path.name.endswith(SUFFIX):
            problems.append(ChainProblem(file=path.name, line=0, what="does not belong in a folder of audit chains"))
        else:
            writer = path.name.removesuffix(SUFFIX)
            writers.append(writer)
            checked = _Chain(path, writer)
            events += checked.run(store)
            problems.extend(checked.problems)
            notes.extend(checked.notes)
    problems.extend(
        ChainProblem(file=f"{writer}{SUFFIX}", line=0, what="the chain is gone, its anchor is still there")
        for writer in store.writers()
        if writer not in writers
    )
    return ChainReport(writers=len(writers), events=events, problems=tuple(problems), notes=tuple(notes))


class _Chain:
    """One chain file under verification."""

    def __init__(self, path: Path, writer: str) -> None:
        self._path = path
        self._writer = writer
        self.problems: list[ChainProblem] = []
        self.notes: list[str] = []

    def run(self, store: Anchors) -> int:
        """Check the file and return how many events hold."""
        try:
            handle = open_regular(self._path)
        except HeadwayError as error:
            self._problem(0, error.message)
            return 0
        with os.fdopen(handle, "rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH)
            anchor, believed = self._anchor(store)
            at_anchor: AuditEvent | None = None
            last: AuditEvent | None = None
            count = 0
            for number, line in enumerate(file, start=1):
                event = self._line(number, line, last)
                if event is None:
                    break
                count += 1
                last = event
                if anchor is not None and event.seq == anchor.seq:
                    at_anchor = event
        if believed and not self.problems:
            self._end(anchor, at_anchor, last)
        return count

    def _anchor(self, store: Anchors) -> tuple[Anchor | None, bool]:
        try:
            return store.read(self._writer), True
        except HeadwayError as error:
            self._problem(0, error.message)
            return None, False

    def _line(self, number: int, line: bytes, last: AuditEvent | None) -> AuditEvent | None:
        """Return the line's event, or None after noting why the chain ends here."""
        if not line.endswith(b"\n"):
            self.notes.append(f"{self._path.name}:{number}: an unfinished write, {len(line)} bytes")
            return None
        try:
            event = parse_event(line[:-1], where="line")
        except HeadwayError as error:
            self._problem(number, error.message)
            return None
        expected = 0 if last is None else last.seq + 1
        if event.writer != self._writer:
            self._problem(number, f"belongs to the writer {event.writer}")
        elif event.seq != expected:
            self._problem(number, f"has seq {event.seq} where {expected} must follow")
        elif event.prev != (GENESIS if last is None else last.hash):
            self._problem(number, "does not follow the event before it")
        else:
            return event
        return None

    def _end(self, anchor: Anchor | None, at_anchor: AuditEvent | None, last: AuditEvent | None) -> None:
        if last is None and anchor is None:
            return
        if anchor is None:
            if last is not None and last.seq > 0:
                self._problem(0, "has no anchor: the end of the chain cannot be proved")
            return
        if last is None or last.seq < anchor.seq:
            seen = "is empty" if last is None else f"ends at seq {last.seq}"
            self._problem(0, f"{seen}, its anchor knows seq {anchor.seq}: events were cut off")
        elif at_anchor is None or at_anchor.hash != anchor.hash:
            self._problem(anchor.seq + 1, "differs from what its anchor knows: the end was rewritten")
        elif last.seq > anchor.seq + 1:
            self._problem(anchor.seq + 3, f"{last.seq - anchor.seq} events beyond the anchor: added past the log")

    def _problem(self, line: int, what: str) -> None:
        self.problems.append(ChainProblem(file=self._path.name, line=line, what=what))


def read_events(folder: Path) -> Iterator[AuditEvent]:
    """Yield the events of all chains, writer by writer; Tampered at the first line that does not hold."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with os.fdopen(open_regular(path), "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield parse_event(line[:-1], where=f"{path.name}:{number}")
