"""Spool files: appended in one thread, made durable in groups, drained (`serving.drain`) by who commits to the lake.

A file is an Arrow IPC stream. Each group of rows is one record batch, written and synchronised at most 50 ms after its
first row came; after a kill -9 every complete batch before the torn end is readable. While a writer lives it holds an
exclusive lock on its `*.open` file, which gets that name only once it is locked; a rolled file is renamed to
`*.arrows`. A drain takes rolled files, and open files whose lock is free because their writer died.

What the machine refuses (disk, memory) is tried again. An item that cannot be written at all is left out alone, counted
and logged: no item ends the log for the others.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import pyarrow as pa

from headway.core.clock import Clock, SystemClock
from headway.core.errors import PlatformError, Unavailable
from headway.governance.files import sync_folder

T = TypeVar("T")


class _Waiting(threading.Event):
    """Set once an item is on disk, or left out."""

    refused: str | None = None
    """Why it was left out."""


_Entry: TypeAlias = tuple[T, int, _Waiting | None]
"""An item, its rows, and who waits until they are on disk."""
_LOG = logging.getLogger(__name__)
GROUP_S = 0.05
"""Longest time between a row's arrival and its fsync (INTERFACES §2, `decision_log: durable`)."""
_ROLL_S = 5.0
_ROLL_ROWS = 200_000
_FULL_ROWS = 200_000
DRAFT = ".new"
"""Ending of a file that is not locked yet."""
_SYNC_S = 5.0
"""Longest wait for an item to be on disk."""


class Spool(Generic[T]):
    """One writer's files in one folder; `add` never waits and never touches the disk, `add_and_sync` waits for it."""

    def __init__(
        self,
        folder: Path,
        writer: str,
        schema: pa.Schema,
        build: Callable[[list[T]], pa.RecordBatch],
        *,
        durable: bool,
        clock: Clock | None = None,
        roll_s: float = _ROLL_S,
        full_rows: int = _FULL_ROWS,
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._schema = schema
        self._build = build
        self._durable = durable
        self._clock = clock or SystemClock()
        self._roll_s = roll_s
        self._full_rows = full_rows
        self._queue: deque[_Entry[T]] = deque()
        self._waiting_rows = 0
        self._taken_rows = 0
        self._number = 0
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._adding = threading.Lock()
        self._stop = threading.Event()
        self._file: Any = None
        self._stream: Any = None
        self._path: Path | None = None
        self._rows = 0
        self._opened = 0.0
        self.dropped = 0
        """Rows that a lossy spool could not take, and rows that cannot be written."""
        self.written = 0
        """Rows that are on disk."""
        self.error: str | None = None
        """Why the last group could not be written."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread = threading.Thread(target=self._run, name=f"spool-{folder.name}", daemon=True)
        self._thread.start()

    def add(self, item: T, rows: int) -> None:
        """Take an item of `rows` rows; a full lossy spool counts the loss."""
        if self._waiting_rows - self._taken_rows + rows > self._full_rows and not self._durable:
            self.dropped += rows
            return
        self._waiting_rows += rows
        self._queue.append((item, rows, None))
        if not self._wake.is_set():
            self._wake.set()

    def add_and_sync(self, item: T, rows: int) -> None:
        """Take an item of a durable spool from any thread, and return once its rows are on disk.

        Raises Unavailable after five seconds; the rows stay in the queue and may still be written. PlatformError: they
        cannot be written.
        """
        done = _Waiting()
        with self._adding:
            self._waiting_rows += rows
            self._queue.append((item, rows, done))
        self._hurry.set()
        self._wake.set()
        if not done.wait(timeout=_SYNC_S):
            raise Unavailable(f"not on disk after {_SYNC_S:.0f} s: {self.error or 'it is slow'}", retry_after_s=5.0)
        if done.refused is not None:
            raise PlatformError(f"the rows cannot be written: {done.refused}")

    @property
    def alive(self) -> bool:
        """Whether what is added is still written; true of a closed one."""
        return self._stop.is_set() or self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return self._waiting_rows - self._taken_rows

    @property
    def full(self) -> bool:
        """Whether a durable spool is too far behind its disk."""
        return self._durable and self._waiting_rows - self._taken_rows > self._full_rows

    def problem(self) -> str | None:
        """Say what keeps rows from the disk; fixed text."""
        if not self.alive:
            return "its thread ended"
        return "full: the disk is slow or away" if self.full else None

    def require_room(self) -> None:
        """Raise Unavailable while the spool is full."""
        if self.full:
            raise Unavailable(f"the decision log is full: {self.error or 'the disk is slow'}", retry_after_s=5.0)

    def close(self) -> None:
        """Write what is left and roll the file."""
        self._stop.set()
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(timeout=min(1.0, self._roll_s))
            self._hurry.wait(timeout=GROUP_S / 2)  # let a group gather; fsync follows within the other half
            self._hurry.clear()
            self._wake.clear()
            self._round()
        self._round()
        self._roll()

    def _round(self) -> None:
        taken: list[_Entry[T]] = []
        while self._queue:
            taken.append(self._queue.popleft())
        try:
            if taken:
                self._write(taken)
                taken = []
            if self._file is not None and (
                self._rows >= _ROLL_ROWS or self._clock.monotonic() - self._opened >= self._roll_s
            ):
                self._roll()
        except OSError as error:
            self._failed(taken, error)
        except Exception as error:  # whatever an item brought: the thread outlives it
            _LOG.warning("the spool %s writes items one by one: %s", self._folder.name, type(error).__name__)
            if not taken:  # it came from the file
                self._abandon()
            self._write_each(taken)

    def _write_each(self, taken: list[_Entry[T]]) -> None:
        """Write items that cannot be written together, and leave out those that cannot be written at all."""
        for place, entry in enumerate(taken):
            try:
                self._write([entry])
            except (OSError, MemoryError) as error:
                self._failed(taken[place:], error)
                return
            except Exception as error:
                self._leave_out(entry, error)

    def _leave_out(self, entry: _Entry[T], error: Exception) -> None:
        _, rows, done = entry
        # the text may hold the caller's data: the log names the kind
        _LOG.error("the spool %s leaves out %d rows: %s", self._folder.name, rows, type(error).__name__)
        self._taken_rows += rows
        self.dropped += rows
        if done is not None:
            done.refused = type(error).__name__
            done.set()

    def _write(self, taken: list[_Entry[T]]) -> None:
        batch = self._build([item for item, _, _ in taken])
        if self._file is None:
            self._open()
        try:
            self._stream.write_batch(batch)
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
        except Exception:
            self._abandon()
            raise
        self._rows += batch.num_rows
        self._taken_rows += sum(rows for _, rows, _ in taken)
        self.written += batch.num_rows
        self.error = None
        for _, _, done in taken:
            if done is not None:
                done.set()

    def _failed(self, taken: list[_Entry[T]], error: Exception) -> None:
        """Keep the rows of a durable log for the next round, which starts a new file."""
        if self.error is None:
            _LOG.error("the spool %s cannot be written: %s", self._folder.name, error)
        self.error = str(error)
        self._abandon()
        if self._durable:
            self._queue.extendleft(reversed(taken))
            self._stop.wait(timeout=1.0)
            self._wake.set()
        else:
            rows = sum(rows for _, rows, _ in taken)
            self._taken_rows += rows
            self.dropped += rows

    def _abandon(self) -> None:
        """Leave a file that may be torn to the drain, which reads it up to there."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = self._stream = None

    def _open(self) -> None:
        """Start a file that no drain ever sees unlocked: made under a hidden name, locked, then renamed."""
        self._number += 1
        path = self._folder / f"{self._writer}-{self._number:06d}.open"
        if path.exists():
            raise FileExistsError(f"{path.name} is there already")
        while True:
            draft = path.with_name(f".{path.stem}{DRAFT}")
            file = draft.open("xb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                draft.rename(path)
            except FileNotFoundError:  # before it was locked, a drain took it for a dead writer's: again
                file.close()
                continue
            break
        if self._durable:
            sync_folder(self._folder)
        self._file, self._path = file, path
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        self._rows = 0
        self._opened = self._clock.monotonic()

    def _roll(self) -> None:
        if self._file is None or self._path is None:
            return
        self._stream.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.rename(self._path.with_suffix(".arrows"))
        self._file.close()
        self._file = self._stream = None
