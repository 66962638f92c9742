"""Commits to the lake: batches, each with an id of its own, and the upkeep of what was committed.

A batch that was committed already is not committed again, however often it is handed over and whoever else commits.
"""

from __future__ import annotations

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from uuid import UUID

import pyarrow as pa

from headway.core.clock import Clock, SystemClock
from headway.core.errors import HeadwayError, InvalidValue, NotFound, Unavailable
from headway.core.times import DAY
from headway.features.definitions import EventSource
from headway.features.lake import (
    Location,
    TableSpec,
    batch_list,
    conform_table,
    ensure_table,
    open_catalog,
    open_table,
    read_spool,
    spec_of,
)
from headway.features.lake_faults import lake_faults
from headway.features.lake_files import Write, add_rows, remove_orphans
from headway.features.lake_memory import BATCHES, STAMP, committed, stamp_of
from headway.features.lake_retention import Retention
from headway.features.lake_upkeep import Compacted, Expired, compact_step, expire_step
from headway.features.lake_upsert import replace_rows, require_keys

if TYPE_CHECKING:
    from pyiceberg.table import Table

_LOG = logging.getLogger(__name__)
Batch: TypeAlias = "pa.Table | Path | str"
_T = TypeVar("_T")
_ATTEMPTS = 20
_PAUSE_S = 0.1


class Committer:
    """Commits in this process.

    Any number may run on one catalog: whoever finds that another was first looks again at what is committed. The
    embedded catalog locks so coarsely, though, that one does more than several; so a cluster has one.
    """

    def __init__(self, location: Location, clock: Clock | None = None) -> None:
        with lake_faults("open the lake"):
            self._catalog = open_catalog(location)
        self._clock = clock or SystemClock()
        self._tables: dict[str, Table] = {}
        self._columns: dict[str, dict[str, str]] = {}
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
        spec = spec_of(table)
        return self._insist(spec.name, f"append to {spec.name}", lambda: self._write(spec, batches))

    def upsert(self, table: EventSource | TableSpec, data: Batch, batch_id: str, keys: Sequence[str]) -> int:
        """Put rows in the place of those with the same keys, add those without, and return the snapshot.

        Idempotent like `append`, whose errors it has. NotFound and InvalidValue tell of keys that are no columns, null
        or repeated. What was filled from the replaced rows does not change: use it for tables of facts, not of events.
        """
        spec = spec_of(table)
        return self._insist(
            spec.name, f"upsert into {spec.name}", lambda: self._write(spec, [(data, batch_id)], tuple(keys))
        )

    def ensure(self, table: EventSource | TableSpec) -> None:
        """Create the table if it is new."""
        spec = spec_of(table)
        self._insist(spec.name, f"open {spec.name}", lambda: self._known(spec))

    def compact_step(self, name: str, *, whole: bool = False) -> Compacted:
        """Merge some small files of a table: about a second of work; `left` says whether another step is due.

        Only files of one size are merged as a rule, which bounds their number at little cost; `whole` merges all.
        """
        write = Write()

        def act() -> Compacted:
            try:
                return compact_step(self._opened(name), write, whole=whole)
            except Exception:
                self._failed[name].add(write.id)
                raise

        return self._insist(name, f"compact {name}", act)

    def expire_step(self, name: str, keep: Collection[int] = (), retention: Retention | None = None) -> Expired:
        """Let some old snapshots of a table go, and files whose grace is over; `left` says whether more are due."""
        done = self._insist(
            name,
            f"expire {name}",
            lambda: expire_step(self._opened(name), keep, self._clock.now(), retention or Retention()),
        )
        if done.snapshots:
            self._committed.pop(name, None)
            self._tables.pop(name, None)
        return done

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

    def _write(self, spec: TableSpec, batches: Sequence[tuple[Batch, str]], keys: tuple[str, ...] | None = None) -> int:
        known = self._known(spec)
        opened = self._tables[spec.name]
        stamp = max(self._clock.now(), stamp_of(opened.current_snapshot()) + 1)
        new: dict[str, pa.Table] = {}
        for data, batch_id in batches:
            if not batch_id or "," in batch_id:
                raise InvalidValue("batch_id", f"{batch_id!r}", hint="some text without comma")
            if batch_id not in known and batch_id not in new:
                rows = data if isinstance(data, pa.Table) else read_spool(Path(data))
                new[batch_id] = conform_table(spec, rows, stamp)
        rows = pa.concat_tables(new.values()) if new else None
        if rows is not None and rows.num_rows:
            properties = {BATCHES: batch_list(new), STAMP: str(stamp)}
            write = Write()
            if keys is not None:
                require_keys(spec.name, rows, keys)
            try:
                if keys is None:
                    add_rows(opened, rows, properties, write)
                else:
                    replace_rows(opened, rows, keys, properties, write)
            except Exception:
                self._failed[spec.name].add(write.id)
                raise
            if self._failed[spec.name]:
                remove_orphans(opened, writes=self._failed.pop(spec.name))
        snapshot = opened.current_snapshot()
        current = 0 if snapshot is None else snapshot.snapshot_id
        known.update(dict.fromkeys(new, current))
        return known[batches[-1][1]] if batches else current

    def _insist(self, name: str, what: str, act: Callable[[], _T]) -> _T:
        """Run an act on a table; where another writer was first, look at the table anew and run it again."""
        from pyiceberg.exceptions import CommitFailedException

        with lake_faults(what):
            for attempt in range(_ATTEMPTS):
                try:
                    return act()
                except CommitFailedException:
                    self._forget(name, clean=True)
                    time.sleep(random.uniform(0, _PAUSE_S * (attempt + 1)))
                except HeadwayError:
                    raise
                except Exception as error:
                    self._forget(name, clean=isinstance(error, OSError))
                    raise
        raise Unavailable(f"{what}: others keep committing", retry_after_s=_PAUSE_S, hint="repeat it")

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
            table = open_table(self._catalog, name)
            self._committed.setdefault(name, {}).update(committed(table))
            self._tables[name] = table
        return self._tables[name]

    def _known(self, spec: TableSpec) -> dict[str, int]:
        """Return the batches committed to a table so far, read once; the table has the columns."""
        columns = self._columns.setdefault(spec.name, {})
        if spec.name not in self._tables or not spec.columns.items() <= columns.items():
            table = ensure_table(self._catalog, spec)
            self._committed.setdefault(spec.name, {}).update(committed(table))
            self._tables[spec.name] = table
        columns.update(spec.columns)
        return self._committed[spec.name]
