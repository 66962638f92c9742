"""Drains spool files into the lake: each finished file once, in slices of bounded size."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol, TypeAlias

import pyarrow as pa

from headway.core.errors import DefinitionError, HeadwayError, InputError
from headway.serving.spool import DRAFT

_LOG = logging.getLogger(__name__)
_SLICE_FILES = 64
_SLICE_BYTES = 64 << 20
"""What a drain holds in memory and commits at once, unless one file is larger."""
Keep: TypeAlias = Callable[[pa.Table, str], pa.Table]
"""(rows of a file, its batch id) → the rows to commit."""
Then: TypeAlias = Callable[[pa.Table, str], None]
"""What else is done with committed rows, given with their batch id."""


class Committer(Protocol):
    """The only writer of the lake (`headway.features.lake.committer`)."""

    def append_many(self, table: str, batches: Sequence[tuple[pa.Table, str]]) -> object:
        """Append batches of one schema in one commit, each once per batch id, however often it is called."""
        ...


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


def drain(folder: Path, table: str, committer: Committer, *, keep: Keep | None = None, then: Then | None = None) -> int:
    """Commit every finished spool file to `table`, slice by slice, and remove it; return the rows committed.

    Idempotent: the batch id is the file's name, so a drain that dies between commit and removal repeats harmlessly.
    `keep` may leave out rows of a file, and must leave out the same ones when it is repeated. `then` gets what was
    committed before the file goes, perhaps more than once. Files that do not fit the table stay, and their error is
    raised after the others were drained.
    """
    rows, refused = 0, list[HeadwayError]()
    for paths, slice_ in _slices(folder):
        read = slice_ if keep is None else [(keep(data, batch_id), batch_id) for data, batch_id in slice_]
        batches = [(data, batch_id) for data, batch_id in read if data.num_rows]
        try:
            if batches:
                committer.append_many(table, batches)
        except (DefinitionError, InputError) as error:
            refused.append(error)
            continue
        if then is not None:
            for data, batch_id in batches:
                then(data, batch_id)
        for path in paths:
            path.unlink(missing_ok=True)
        rows += sum(data.num_rows for data, _ in batches)
    if refused:
        raise refused[0]
    return rows


def _slices(folder: Path) -> Iterator[tuple[list[Path], list[tuple[pa.Table, str]]]]:
    """Give the finished files and their rows with batch ids, in slices of bounded size and one schema each."""
    paths: list[Path] = []
    batches: list[tuple[pa.Table, str]] = []
    for path in _finished(folder):
        data = read_prefix(path)
        if data is not None and batches:
            size = data.nbytes + sum(batch.nbytes for batch, _ in batches)
            if size > _SLICE_BYTES or data.schema != batches[0][0].schema or len(paths) >= _SLICE_FILES:
                yield paths, batches
                paths, batches = [], []
        paths.append(path)
        if data is not None:
            batches.append((data, f"{folder.name}/{path.stem}"))
    if paths:
        yield paths, batches


def _finished(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.glob(f".*{DRAFT}"):  # no rows are in it yet
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if _writer_is_dead(file):
                path.unlink()
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
