"""Group commit: batches of many callers that wait for one table become one commit.

Whoever comes while a commit runs waits, and the next commit takes all who wait by then; so a lake has as many commits
as it can make, and more callers make larger ones. Each batch keeps its id: one that was committed before is left out,
and one that cannot be committed fails its own caller only.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from headway.core.errors import Unavailable
from headway.features.definitions import EventSource
from headway.features.lake.committer import Batch, Committer
from headway.features.lake.tables import TableSpec, spec_of

GROUP_BYTES = 64 * 1024 * 1024
"""Bytes after which a commit takes no further caller."""


@dataclass(eq=False)
class _Caller:
    batches: Sequence[tuple[TableSpec, Batch, str]]
    found: dict[str, int] | None = None
    error: BaseException | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(_size(data) for _, data, _ in self.batches)

    @property
    def done(self) -> bool:
        return self.found is not None or self.error is not None


class GroupCommit:
    """Appends through one committer, for any number of threads."""

    def __init__(self, committer: Committer, committed: Callable[[str], None] = lambda _: None) -> None:
        """`committed` is told the table after each commit."""
        self._committer = committer
        self._committed = committed
        self._guard = threading.Lock()
        self._turns: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._waiting: dict[str, list[_Caller]] = defaultdict(list)

    def append_many(self, table: EventSource | TableSpec, batches: Sequence[tuple[Batch, str]]) -> int:
        """Append batches and return the snapshot of the last; see `Committer.append_many`."""
        spec = spec_of(table)
        if not batches:
            return self._committer.append_many(spec, batches)
        own = _Caller([(spec, data, batch_id) for data, batch_id in batches])
        with self._guard:
            self._waiting[spec.name].append(own)
            turn = self._turns[spec.name]
        while not own.done:
            with turn:
                if not own.done:
                    self._commit(spec.name)
        if own.error is not None:
            raise own.error
        assert own.found is not None
        return own.found[batches[-1][1]]

    def _commit(self, name: str) -> None:
        group = self._next(name)
        try:
            found = self._committer.append_all([batch for caller in group for batch in caller.batches])
        except Exception as error:
            if len(group) == 1 or isinstance(error, Unavailable):
                for caller in group:
                    caller.error = error
                return
            for caller in group:  # one of them is at fault, and each learns whether it is its own
                self._alone(caller)
        else:
            for caller in group:
                caller.found = found
        self._committed(name)

    def _alone(self, caller: _Caller) -> None:
        try:
            caller.found = self._committer.append_all(caller.batches)
        except Exception as error:
            caller.error = error

    def _next(self, name: str) -> list[_Caller]:
        """Take callers off the queue, at least one, in the order in which they came."""
        with self._guard:
            waiting = self._waiting[name]
            count, size = 0, 0
            while count < len(waiting) and (not count or size + waiting[count].size <= GROUP_BYTES):
                size += waiting[count].size
                count += 1
            group, self._waiting[name] = waiting[:count], waiting[count:]
        return group


def _size(data: Batch) -> int:
    if isinstance(data, pa.Table):
        return int(data.nbytes)
    try:
        return Path(data).stat().st_size
    except OSError:  # the commit says what is wrong with it
        return 0
