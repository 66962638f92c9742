"""Commits to the lake: batches, each with an id of its own, and the upkeep of what was committed.

A batch that was committed already is not committed again, however often it is handed over and whoever else commits.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from uuid import UUID

import pyarrow as pa

from headway.core.clock import Clock, SystemClock
from headway.core.errors import HeadwayError, InvalidValue, NotFound, Unavailable
from headway.core.times import DAY
from headway.features.definitions import EventSource
from headway.features.lake.compaction import Compacted, plan_merge, put_in_place, write_merged
from headway.features.lake.expiry import Expired, Expiry, drop_abandoned, expire, plan_expiry
from headway.features.lake.faults import lake_faults
from headway.features.lake.files import Write, add_rows, remove_orphans
from headway.features.lake.memory import BATCHES, REMEMBERED, STAMP, committed, stamp_of
from headway.features.lake.retention import Retention
from headway.features.lake.schema import conform_table, ensure_table
from headway.features.lake.tables import (
    Location,
    TableSpec,
    batch_list,
    file_schema,
    open_catalog,
    open_table,
    read_spool,
    spec_of,
)
from headway.features.lake.upsert import replace_rows, require_keys

if TYPE_CHECKING:
    from pyiceberg.table import Table

_LOG = logging.getLogger(__name__)
Batch: TypeAlias = "pa.Table | Path | str"
_T = TypeVar("_T")
_ATTEMPTS = 20
_PAUSE_S = 0.1


class Committer:
    """Commits in this process; threads may share it.

    Any number may run on one catalog: whoever finds that another was first looks again at what is committed. The
    embedded catalog locks so coarsely, though, that one does more than several; so a cluster has one.
    """

    def __init__(self, location: Location, clock: Clock | None = None) -> None:
        with lake_faults("open the lake"):
            self._catalog = open_catalog(location)
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        """Held while something is committed or looked up, never while files are merged."""
        self._tables: dict[str, Table] = {}
        self._specs: dict[str, list[TableSpec]] = defaultdict(list)
        """Definitions that tables are known to take."""
        self._committed: dict[str, dict[str, int]] = {}
        self._failed: dict[str, set[UUID]] = defaultdict(set)
        """Writes that failed, by table, whose files may still lie there."""

    def append(self, table: EventSource | TableSpec, data: Batch, batch_id: str) -> int:
        """Append a batch (Arrow, or the path of a spool file) and return the snapshot that holds it.

        Repeating a batch id changes nothing and returns the first snapshot.
        """
        return self.append_many(table, [(data, batch_id)])

    def append_many(self, table: EventSource | TableSpec, batches: Sequence[tuple[Batch, str]]) -> int:
        """Append several batches in one commit; those already committed are left out.

        Returns the snapshot of the last batch given; 0 for a table that never got a row. Raises Unavailable where the
        catalog is locked or the disk is full: no snapshot has a part of the batches then, and they may be repeated.
        """
        if not batches:
            return self._current(spec_of(table))
        return self.append_all([(table, data, batch_id) for data, batch_id in batches])[batches[-1][1]]

    def append_all(self, batches: Sequence[tuple[EventSource | TableSpec, Batch, str]]) -> dict[str, int]:
        """Append batches of one table in one commit, and return the snapshot that holds each, by id.

        Each comes with the definition that it was made by, which may be older than the table. Otherwise like
        `append_many`.
        """
        named = [(spec_of(table), data, batch_id) for table, data, batch_id in batches]
        name = named[0][0].name
        return self._insist(name, f"append to {name}", lambda: self._write(named))

    def upsert(self, table: EventSource | TableSpec, data: Batch, batch_id: str, keys: Sequence[str]) -> int:
        """Put rows in the place of those with the same keys, add those without, and return the snapshot.

        Idempotent like `append`, whose errors it has. NotFound and InvalidValue tell of keys that are no columns, null
        or repeated. What was filled from the replaced rows does not change: use it for tables of facts, not of events.
        """
        spec = spec_of(table)
        found = self._insist(
            spec.name, f"upsert into {spec.name}", lambda: self._write([(spec, data, batch_id)], tuple(keys))
        )
        return found[batch_id]

    def ensure(self, table: EventSource | TableSpec) -> None:
        """Create the table if it is new, and let it grow into its definition."""
        self._current(spec_of(table))

    def _current(self, spec: TableSpec) -> int:
        return self._insist(spec.name, f"open {spec.name}", lambda: _snapshot(self._taking(spec)))

    def compact_step(self, name: str, *, whole: bool = False, level: bool = False) -> Compacted:
        """Merge some small files of a table: about a second of work; `left` says whether another step is due.

        Only files of one size are merged as a rule, which bounds their number at little cost; `level` merges also what
        is much beside the largest file, `whole` all. Appends wait for the last part only, the commit.
        """
        from pyiceberg.exceptions import ValidationException

        what, write = f"compact {name}", Write()
        merge = self._insist(name, what, lambda: plan_merge(self._opened(name), whole=whole, level=level))
        if merge is None:
            return Compacted()
        try:
            with lake_faults(what):
                made = write_merged(merge, write)
            return self._insist(name, what, lambda: put_in_place(self._opened(name), merge, made))
        except ValidationException:  # what was merged is not in the table any more: the next step plans anew
            self._clean(name, write)
            return Compacted(left=1)
        except Exception:
            self._clean(name, write)
            raise

    def expire_step(self, name: str, keep: Collection[int] = (), retention: Retention | None = None) -> Expired:
        """Let some old snapshots of a table go, and files whose grace is over; `left` says whether more are due."""
        what, rule = f"expire {name}", retention or Retention()
        for _ in range(_ATTEMPTS):
            table = self._insist(name, what, lambda: self._without_abandoned(name))
            with lake_faults(what):
                expiry = plan_expiry(table, keep, self._clock.now(), rule)
            if expiry is None:
                return Expired()
            if self._insist(name, what, partial(self._expire, name, expiry)):
                return expiry.done
        raise _crowded(what)

    def remove_orphans(self, name: str, older_than: int = DAY) -> int:
        """Delete files that nothing names and that are older than some microseconds; return how many."""
        before = self._clock.now() - older_than
        return self._insist(name, f"clean {name}", lambda: remove_orphans(self._opened(name), before=before))

    def hold(self, pin: str, snapshots: Mapping[str, int]) -> None:
        """Pin snapshots (table → id) under a name, so that they never expire; 0 stands for none.

        Raises NotFound where one is gone already. Holding the same again changes nothing.
        """
        for name, snapshot_id in snapshots.items():
            if snapshot_id:
                self._insist(name, f"pin {name}", partial(self._hold, name, snapshot_id, pin))

    def release(self, pin: str, tables: Collection[str]) -> None:
        """Let go of what a name pins in some tables; a name that pins nothing is no error."""
        for name in tables:
            self._insist(name, f"unpin {name}", partial(self._release, name, pin))

    def _without_abandoned(self, name: str) -> Table:
        table = self._reopened(name)
        drop_abandoned(table, self._clock.now())
        return copy(table)

    def _expire(self, name: str, expiry: Expiry) -> bool:
        return expire(self._reopened(name), expiry)

    def _reopened(self, name: str) -> Table:
        """Return the table as the catalog has it now: pins and side files are guarded by no requirement of a commit."""
        self._tables.pop(name, None)
        return self._opened(name)

    def _hold(self, name: str, snapshot_id: int, pin: str) -> None:
        table = self._opened(name)
        if table.snapshot_by_id(snapshot_id) is None:
            known = [str(snapshot.snapshot_id) for snapshot in table.metadata.snapshots]
            raise NotFound("snapshot", str(snapshot_id), known=known, field=name)
        held = table.metadata.refs.get(pin)
        if held is None or held.snapshot_id != snapshot_id:
            table.manage_snapshots().create_tag(snapshot_id, pin).commit()

    def _release(self, name: str, pin: str) -> None:
        table = self._opened(name)
        if pin in table.metadata.refs:
            table.manage_snapshots().remove_tag(pin).commit()

    def _write(
        self, batches: Sequence[tuple[TableSpec, Batch, str]], keys: tuple[str, ...] | None = None
    ) -> dict[str, int]:
        name = batches[0][0].name
        for spec, _, _ in batches:
            opened = self._taking(spec)
        known = self._committed[name]
        stamp = max(self._clock.now(), stamp_of(opened.current_snapshot()) + 1)
        schema = file_schema(opened.schema().as_arrow())
        new: dict[str, pa.Table] = {}
        for spec, data, batch_id in batches:
            if not batch_id or "," in batch_id:
                raise InvalidValue("batch_id", f"{batch_id!r}", hint="some text without comma")
            if batch_id not in known and batch_id not in new:
                rows = data if isinstance(data, pa.Table) else read_spool(Path(data))
                new[batch_id] = conform_table(spec, rows, stamp, schema)
        rows = pa.concat_tables(new.values()) if new else None
        if rows is not None and rows.num_rows:
            properties = {BATCHES: batch_list(new), STAMP: str(stamp)}
            write = Write()
            if keys is not None:
                require_keys(name, rows, keys)
            try:
                if keys is None:
                    add_rows(opened, rows, properties, write)
                else:
                    replace_rows(opened, rows, keys, properties, write)
            except Exception:
                self._failed[name].add(write.id)
                raise
            if self._failed[name]:
                remove_orphans(opened, writes=self._failed.pop(name))
        known.update(dict.fromkeys(new, _snapshot(opened)))
        return {batch_id: known[batch_id] for _, _, batch_id in batches}

    def _insist(self, name: str, what: str, act: Callable[[], _T]) -> _T:
        """Run an act on a table; where another writer was first, look at the table anew and run it again."""
        from pyiceberg.exceptions import CommitFailedException

        with lake_faults(what):
            for attempt in range(_ATTEMPTS):
                try:
                    with self._lock:
                        return self._guarded(name, act)
                except CommitFailedException:
                    time.sleep(random.uniform(0, _PAUSE_S * (attempt + 1)))
        raise _crowded(what)

    def _guarded(self, name: str, act: Callable[[], _T]) -> _T:
        from pyiceberg.exceptions import CommitFailedException

        try:
            return act()
        except HeadwayError:
            raise
        except Exception as error:
            self._forget(name, clean=isinstance(error, OSError | CommitFailedException))
            raise

    def _forget(self, name: str, *, clean: bool) -> None:
        """Take the table anew from the catalog next time, and remove what a failed write left: now, or later."""
        self._tables.pop(name, None)
        if not clean or not self._failed[name]:
            return
        try:
            remove_orphans(self._catalog.load_table(name), writes=self._failed[name])
            self._failed.pop(name)
        except Exception as error:  # raised is what failed first; the next write that succeeds cleans up
            _LOG.warning("files of a failed write to %s stay for now: %s", name, type(error).__name__)

    def _opened(self, name: str) -> Table:
        if name not in self._tables:
            self._remember(name, open_table(self._catalog, name))
        return self._tables[name]

    def _taking(self, spec: TableSpec) -> Table:
        """Return the table, made or grown so that it takes a definition."""
        specs = self._specs[spec.name]
        if spec.name not in self._tables or spec not in specs:
            self._remember(spec.name, ensure_table(self._catalog, spec))
            specs += [spec] if spec not in specs else []
        return self._tables[spec.name]

    def _remember(self, name: str, table: Table) -> None:
        known = self._committed.setdefault(name, {})
        known.update(committed(table))
        for batch_id in list(islice(known, max(0, len(known) - 2 * REMEMBERED))):
            del known[batch_id]
        self._tables[name] = table

    def _clean(self, name: str, write: Write) -> None:
        """Let the next write remove what another left that came to nothing."""
        with self._lock:
            self._failed[name].add(write.id)


def _snapshot(table: Table) -> int:
    snapshot = table.current_snapshot()
    return 0 if snapshot is None else snapshot.snapshot_id


def _crowded(what: str) -> Unavailable:
    return Unavailable(f"{what}: others keep committing", retry_after_s=_PAUSE_S, hint="repeat it")
