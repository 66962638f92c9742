"""Spool files: appended in one thread, made durable in groups, drained by whoever commits to the lake.

A file is an Arrow IPC stream. Each group of rows is one record batch, written and synchronised at most 50 ms after its
first row came; after a kill -9 every complete batch before the torn end is readable. While a writer lives it holds an
exclusive lock on its `*.open` file; a rolled file is renamed to `*.arrows`. A drain takes rolled files, and open files
whose lock is free because their writer died.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

import pyarrow as pa

from headway.core.clock import Clock, SystemClock
from headway.core.errors import Unavailable

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
GROUP_S = 0.05
"""Longest time between a row's arrival and its fsync (INTERFACES §2, `decision_log: durable`)."""
_ROLL_S = 5.0
_ROLL_ROWS = 200_000
_FULL_ROWS = 200_000


class Committer(Protocol):
    """The only writer of the lake (`headway.features.committer`)."""

    def append_many(self, table: str, batches: Sequence[tuple[pa.Table, str]]) -> object:
        """Append batches of rows in one commit, each once per batch id, however often it is called."""
        ...


class Spool(Generic[T]):
    """One writer's files in one folder; `add` never waits and never touches the disk."""

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
        self._queue: deque[tuple[T, int]] = deque()
        self._waiting_rows = 0
        self._taken_rows = 0
        self._number = 0
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._file: Any = None
        self._stream: Any = None
        self._path: Path | None = None
        self._rows = 0
        self._opened = 0.0
        self.dropped = 0
        """Rows that a lossy spool could not take."""
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
        self._queue.append((item, rows))
        if not self._wake.is_set():
            self._wake.set()

    def require_room(self) -> None:
        """Raise Unavailable while a durable spool is too far behind its disk."""
        if self._durable and self._waiting_rows - self._taken_rows > self._full_rows:
            raise Unavailable(f"the decision log is full: {self.error or 'the disk is slow'}", retry_after_s=5.0)

    def close(self) -> None:
        """Write what is left and roll the file."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(timeout=min(1.0, self._roll_s))
            self._stop.wait(timeout=GROUP_S / 2)  # let a group gather; fsync follows within the other half
            self._wake.clear()
            self._round()
        self._round()
        self._roll()

    def _round(self) -> None:
        items, rows = [], 0
        while self._queue:
            item, count = self._queue.popleft()
            items.append(item)
            rows += count
        try:
            if items:
                self._write(items, rows)
            if self._file is not None and (
                self._rows >= _ROLL_ROWS or self._clock.monotonic() - self._opened >= self._roll_s
            ):
                self._roll()
        except (OSError, pa.ArrowInvalid) as error:
            self._failed(items, rows, error)

    def _write(self, items: list[T], rows: int) -> None:
        batch = self._build(items)
        if self._file is None:
            self._open()
        self._stream.write_batch(batch)
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())
        self._rows += batch.num_rows
        self._taken_rows += rows
        self.written += batch.num_rows
        self.error = None

    def _failed(self, items: list[T], rows: int, error: Exception) -> None:
        """Keep the rows of a durable log for the next round; start a new file, the old one may be torn."""
        if self.error is None:
            _LOG.error("the spool %s cannot be written: %s", self._folder.name, error)
        self.error = str(error)
        self._file = self._stream = None
        if self._durable:
            self._queue.extendleft((item, 0) for item in reversed(items[1:]))
            if items:
                self._queue.appendleft((items[0], rows))
            self._stop.wait(timeout=1.0)
            self._wake.set()
        else:
            self._taken_rows += rows
            self.dropped += rows

    def _open(self) -> None:
        self._number += 1
        self._path = self._folder / f"{self._writer}-{self._number:06d}.open"
        self._file = self._path.open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
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


def read_prefix(path: Path) -> pa.Table | None:
    """Return the rows of every complete batch of a spool file, None if there is none."""
    batches: list[pa.RecordBatch] = []
    with path.open("rb") as file:
        try:
            for batch in pa.ipc.open_stream(file):
                batches.append(batch)  # noqa: PERF402  # `extend` would lose the batches before a torn one
        except (pa.ArrowInvalid, OSError, EOFError, StopIteration):
            _LOG.info("%s ends in a torn batch; %d complete ones are kept", path.name, len(batches))
    # one chunk per column: a group of rows is small, and whoever serialises the table pays for every chunk
    return pa.Table.from_batches(batches).combine_chunks() if batches else None


def drain(folder: Path, table: str, committer: Committer) -> int:
    """Commit every finished spool file to `table` and remove it; return the rows committed.

    Idempotent: the batch id is the file's name, so a drain that dies between commit and removal repeats harmlessly.
    """
    paths = list(_finished(folder))
    read = [(read_prefix(path), f"{folder.name}/{path.stem}") for path in paths]
    batches = [(data, batch_id) for data, batch_id in read if data is not None and data.num_rows]
    if batches:
        committer.append_many(table, batches)
    for path in paths:
        path.unlink(missing_ok=True)
    return sum(data.num_rows for data, _ in batches)


def _finished(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.open")):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # its writer may roll it meanwhile
            if _writer_is_dead(file):
                path.rename(path.with_suffix(".arrows"))
    yield from sorted(folder.glob("*.arrows"))


def _writer_is_dead(file: IO[bytes]) -> bool:
    """Return whether the lock that a living writer holds is free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
