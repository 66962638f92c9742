"""Batches that broke their source's promise, kept whole until a person decides: one Parquet file each.

A case is `<state>/<batch>-<rows>.parquet`, both hashes, with its report in the file's metadata. A file appears whole or
not at all. A case changes its state by appearing in the next folder and then leaving the last, so after a crash it may
lie in two: the later state counts, in the order held, dropped, releasing, released.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from itertools import chain
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headway.core.canonical import sha256
from headway.core.clock import Clock
from headway.core.errors import Conflict, CorruptState, InvalidValue, NotFound, Unavailable
from headway.core.settings import Settings
from headway.features.lake.faults import lake_faults
from headway.features.quality.check import QualityReport
from headway.features.quality.digest import rows_sha256
from headway.governance.files import locked, private_folder, sync_folder

_META = b"headway.case"
_GIB = 2**30
_SETTLED = 10_000
_RETRY_AFTER_S = 300.0
_WHO = "headway quality list --all shows who decided what"


class State(StrEnum):
    """Where a case is."""

    HELD = "held"
    DROPPED = "dropped"
    """Its rows are kept while there is room, its report longer."""
    RELEASING = "releasing"
    """Decided, but its ingestion has not been seen to end: releasing it again completes it."""
    RELEASED = "released"
    """Its rows are in the lake and no longer here."""


_OPEN = (State.HELD, State.RELEASING)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A quarantined batch."""

    batch: str
    source: str
    state: str
    rows: int
    rows_sha256: str
    """Of the batch as it came."""
    held_at: int
    """UTC microseconds."""
    sent_by: str
    report: QualityReport
    decided_by: str = ""
    decided_at: int = 0
    reason: str = ""
    snapshot_id: int = 0
    """Of the lake, once released."""

    @property
    def open(self) -> bool:
        """Whether it still waits for somebody."""
        return self.state in _OPEN


class Quarantine:
    """The quarantine of an installation; threads and processes may share it.

    Held are at most `max_batches` batches and, with what is kept of dropped ones, `max_bytes` bytes: beyond that
    ingestion of failing batches is refused until somebody decides.
    """

    def __init__(self, folder: Path, clock: Clock, *, max_batches: int = 1_000, max_bytes: int = 4 * _GIB) -> None:
        self._folder = folder
        self._clock = clock
        self._max_batches = max_batches
        self._max_bytes = max_bytes

    def cases(self, source: str | None = None, *, settled: bool = False) -> list[Case]:
        """Return the open cases, oldest first; with `settled` also those that were decided."""
        names = None if settled else {path.name for state in _OPEN for path in self._paths(state)}
        wanted = (case for case in self._read(names) if (settled or case.open) and source in (None, case.source))
        return sorted(wanted, key=lambda case: (case.held_at, case.batch))

    def of_batch(self, source: str, batch: str) -> list[Case]:
        """Return every case of a batch id, in any state."""
        prefix = f"{_batch_key(source, batch)}-"
        return self._read({path.name for state in State for path in self._paths(state, prefix)})

    def find(self, batch: str, source: str | None = None) -> Case:
        """Return the case of a batch, an open one before those settled; NotFound lists the open ones."""
        found = [case for case in self.cases(source, settled=True) if case.batch == batch]
        if not found:
            known = [case.batch for case in self.cases(source)]
            raise NotFound("batch in quarantine", batch, known=known)
        sources = sorted({case.source for case in found})
        if len(sources) > 1:
            raise InvalidValue("BATCH", f"{batch!r} is a batch of {' and of '.join(sources)}", hint="add --source")
        return max(found, key=lambda case: (case.open, case.decided_at))

    def rows(self, case: Case) -> pa.Table:
        """Return what is kept of a case's rows, with times as int64 microseconds."""
        path = self._path(case)
        try:
            with pq.ParquetFile(path) as file:
                return file.read().replace_schema_metadata(None)
        except FileNotFoundError:
            raise Conflict(f"batch {case.batch} is {case.state} no more", hint=_WHO) from None
        except (OSError, pa.ArrowInvalid) as error:
            raise CorruptState(f"the batch {case.batch} cannot be read: {error}", hint=f"look at {path}") from None

    def hold(self, batch: str, events: pa.Table, report: QualityReport, sent_by: str) -> Case:
        """Keep a batch that failed and return its case; holding the same rows again changes nothing.

        Raises Unavailable where the quarantine is full.
        """
        case = Case(
            batch=batch,
            source=report.source,
            state=State.HELD,
            rows=events.num_rows,
            rows_sha256=rows_sha256(events),
            held_at=self._clock.now(),
            sent_by=sent_by,
            report=report,
        )
        with self._locked():
            for known in self.of_batch(case.source, batch):
                if known.rows_sha256 == case.rows_sha256:
                    return known
            self._write(case, events, bounded=True)
        return case

    def decide(
        self,
        case: Case,
        state: State,
        *,
        by: str,
        reason: str,
        record: Callable[[Case], object],
        rows: pa.Table | None = None,
    ) -> Case:
        """Drop a held case, or begin to release it with `rows` in place of those it came with.

        `record` is called before anything changes: where it raises, nothing is decided. Conflict where somebody decided
        otherwise before; the same decision again changes nothing.
        """
        with self._locked():
            now = self._current(case)
            if now.state == state:
                return now
            if now.state != State.HELD:
                raise Conflict(f"batch {case.batch} is {now.state}: {now.decided_by} was first", hint=_WHO)
            decided = msgspec.structs.replace(
                now, state=state, decided_by=by, decided_at=self._clock.now(), reason=reason
            )
            record(decided)
            self._move(decided, self.rows(now) if rows is None else rows)
        return decided

    def released(self, case: Case, snapshot_id: int) -> Case:
        """Remember that the rows of a case are in the lake, and forget them here."""
        with self._locked():
            now = self._current(case)
            if now.state == State.RELEASED:
                return now
            done = msgspec.structs.replace(now, state=State.RELEASED, snapshot_id=snapshot_id)
            self._move(done, self.rows(now).slice(0, 0))
        return done

    def _read(self, names: set[str] | None) -> list[Case]:
        """Return the cases of some files (None: all), each in its latest state.

        States are listed in their order: what leaves one meanwhile is found in a later one.
        """
        found: dict[str, Case] = {}
        for state in State if names is None or names else ():
            for path in self._paths(state):
                case = _case(path) if names is None or path.name in names else None
                if case is not None:
                    found[path.name] = case
        return list(found.values())

    def _current(self, case: Case) -> Case:
        """Return a case as it is now, and remove what a crash left of its earlier states."""
        for known in self.of_batch(case.source, case.batch):
            if known.rows_sha256 == case.rows_sha256:
                self._leave(known)
                return known
        raise NotFound("batch in quarantine", case.batch)

    def _move(self, case: Case, rows: pa.Table) -> None:
        self._write(case, rows)
        self._leave(case)

    def _leave(self, case: Case) -> None:
        """Remove a case from every state but its own."""
        for state in State:
            if state != case.state:
                self._path(case, state).unlink(missing_ok=True)

    def _write(self, case: Case, rows: pa.Table, *, bounded: bool = False) -> None:
        path = self._path(case)
        private_folder(path.parent)
        partial = path.with_suffix(".partial")
        meta = {_META: msgspec.json.encode(case)}
        try:
            with lake_faults(f"quarantine {case.batch}"):
                pq.write_table(rows.replace_schema_metadata(meta), partial, compression="zstd")
                if bounded:
                    self._make_room(case, partial.stat().st_size)
                _durable(partial)
                partial.replace(path)
                sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, case: Case, size: int) -> None:
        """Forget rows of the oldest dropped cases, and the oldest settled ones; Unavailable where that does not do."""
        settled = sorted(chain(self._paths(State.DROPPED), self._paths(State.RELEASED)), key=_modified)
        for path in settled[: max(0, len(settled) - _SETTLED)]:
            for state in State:
                (self._folder / state / path.name).unlink(missing_ok=True)
        held = [path for state in _OPEN for path in self._paths(state)]
        used = sum(path.stat().st_size for path in chain(held, settled[-_SETTLED:]))
        for path in sorted(self._paths(State.DROPPED), key=_modified):
            if used + size <= self._max_bytes:
                break
            dropped, before = _case(path), path.stat()
            if dropped is not None:
                self._write(dropped, self.rows(dropped).slice(0, 0))
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
                used -= before.st_size - path.stat().st_size
        if len(held) >= self._max_batches or used + size > self._max_bytes:
            raise Unavailable(
                f"the quarantine is full ({len(held):,} batches, {used / 2**20:,.0f} MiB): {case.source} #{case.batch} "
                "failed its checks and was neither ingested nor kept",
                retry_after_s=_RETRY_AFTER_S,
                hint="headway quality list, then release or drop; and send the batch again",
            )

    def _paths(self, state: State, prefix: str = "") -> Iterator[Path]:
        return (self._folder / state).glob(f"{prefix}*.parquet")

    def _path(self, case: Case, state: str = "") -> Path:
        name = f"{_batch_key(case.source, case.batch)}-{case.rows_sha256[:16]}.parquet"
        return self._folder / (state or case.state) / name

    def _locked(self) -> AbstractContextManager[None]:
        return locked(private_folder(self._folder))


def quarantine_folder(settings: Settings) -> Path:
    """Return where an installation keeps its quarantine."""
    return settings.home / "quarantine"


def _batch_key(source: str, batch: str) -> str:
    return sha256(f"{source}#{batch}".encode())[:16]


def _case(path: Path) -> Case | None:
    """Return the case of a file; None where it went to another state."""
    try:
        return msgspec.json.decode((pq.read_schema(path).metadata or {})[_META], type=Case)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, pa.ArrowInvalid, msgspec.MsgspecError) as error:
        raise CorruptState(f"not a quarantined batch: {path}: {error}", hint="keep it and move it away") from None


def _durable(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _modified(path: Path) -> float:
    return path.stat().st_mtime
