"""The only writer of the lake: one named actor per cluster commits for everybody.

The embedded catalog loses commits under concurrent writers, and small commits make small files; so writers hand over
batches, each with an id of its own, and a batch that was committed already is not committed again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from headway.core.clock import Clock, SystemClock
from headway.core.errors import HeadwayError, InvalidValue
from headway.core.ray_session import run_in_background
from headway.core.settings import Settings
from headway.features.definitions import EventSource
from headway.features.lake import (
    BATCHES,
    Location,
    TableSpec,
    batch_list,
    conform_table,
    ensure_table,
    open_catalog,
    read_spool,
    spec_of,
)
from headway.features.lake_faults import lake_faults, remove_orphans

if TYPE_CHECKING:
    from pyiceberg.table import Table

_LOG = logging.getLogger(__name__)
ACTOR = "headway-committer"
NAMESPACE = "headway"
Batch: TypeAlias = "pa.Table | Path | str"


class Committer:
    """Commits in this process; use it directly only where nobody else writes: tests and tools."""

    def __init__(self, location: Location, clock: Clock | None = None) -> None:
        with lake_faults("open the lake"):
            self._catalog = open_catalog(location)
        self._clock = clock or SystemClock()
        self._tables: dict[str, Table] = {}
        self._columns: dict[str, dict[str, str]] = {}
        self._committed: dict[str, dict[str, int]] = {}
        self._failed: set[str] = set()
        """Tables in which a write failed, whose files may still lie there."""

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
        with lake_faults(f"append to {spec.name}"):
            return self._append(spec, batches)

    def _append(self, spec: TableSpec, batches: Sequence[tuple[Batch, str]]) -> int:
        known = self._known(spec)
        new: dict[str, pa.Table] = {}
        for data, batch_id in batches:
            if not batch_id or "," in batch_id:
                raise InvalidValue("batch_id", f"{batch_id!r}", hint="some text without comma")
            if batch_id not in known and batch_id not in new:
                rows = data if isinstance(data, pa.Table) else read_spool(Path(data))
                new[batch_id] = conform_table(spec, rows, self._clock.now())
        opened = self._tables[spec.name]
        rows = pa.concat_tables(new.values()) if new else None
        if rows is not None and rows.num_rows:
            try:
                opened.append(rows, snapshot_properties={BATCHES: batch_list(new)})
            except Exception as error:
                self._forget(spec.name, clean=isinstance(error, OSError))
                raise
            if spec.name in self._failed:
                remove_orphans(opened)
                self._failed.discard(spec.name)
        snapshot = opened.current_snapshot()
        current = 0 if snapshot is None else snapshot.snapshot_id
        known.update(dict.fromkeys(new, current))
        return known[batches[-1][1]] if batches else current

    def ensure(self, table: EventSource | TableSpec) -> None:
        """Create the table if it is new."""
        spec = spec_of(table)
        with lake_faults(f"open {spec.name}"):
            self._known(spec)

    def _forget(self, name: str, *, clean: bool) -> None:
        """Take the table anew from the catalog next time, and remove what the failed write left: now, or then."""
        self._failed.add(name)
        self._tables.pop(name, None)
        if not clean:
            return
        try:
            remove_orphans(self._catalog.load_table(name))
        except Exception as error:  # raised is what failed first; the next write that succeeds cleans up
            _LOG.warning("files of a failed write to %s stay for now: %s", name, type(error).__name__)

    def _known(self, spec: TableSpec) -> dict[str, int]:
        """Return the batches committed to a table so far, read from its snapshots once; the table has the columns."""
        columns = self._columns.setdefault(spec.name, {})
        if spec.name in self._tables and not spec.columns.items() <= columns.items():
            self._tables[spec.name] = ensure_table(self._catalog, spec)
        if spec.name not in self._tables:
            table = ensure_table(self._catalog, spec)
            known: dict[str, int] = {}
            for snapshot in table.metadata.snapshots:
                listed = snapshot.summary.additional_properties.get(BATCHES, "") if snapshot.summary else ""
                known.update(dict.fromkeys(filter(None, listed.split(",")), snapshot.snapshot_id))
            self._tables[spec.name] = table
            self._committed.setdefault(spec.name, {}).update(known)
        columns.update(spec.columns)
        return self._committed[spec.name]


class _Committers:
    """What runs in the actor: one committer per lake, made on first use."""

    def __init__(self) -> None:
        run_in_background()
        self._by_location: dict[Location, Committer] = {}

    def append_many(
        self, location: Location, table: EventSource | TableSpec, batches: Sequence[tuple[Batch, str]]
    ) -> int:
        return self._of(location).append_many(table, batches)

    def ensure(self, location: Location, table: EventSource | TableSpec) -> None:
        self._of(location).ensure(table)

    def _of(self, location: Location) -> Committer:
        if location not in self._by_location:
            self._by_location[location] = Committer(location)
        return self._by_location[location]


class CommitterClient:
    """Speaks to the actor, with the same methods as `Committer`."""

    def __init__(self, actor: Any, location: Location) -> None:
        self._actor = actor
        self._location = location

    def append(self, table: EventSource | TableSpec, data: Batch, batch_id: str) -> int:
        """Append one batch; see `Committer.append`."""
        return self.append_many(table, [(data, batch_id)])

    def append_many(self, table: EventSource | TableSpec, batches: Sequence[tuple[Batch, str]]) -> int:
        """Append several batches in one commit; see `Committer.append_many`."""
        return int(_result(self._actor.append_many.remote(self._location, table, list(batches))))

    def ensure(self, table: EventSource | TableSpec) -> None:
        """Create the table if it is new."""
        _result(self._actor.ensure.remote(self._location, table))


def committer(settings: Settings) -> CommitterClient:
    """Return the client of the cluster's committer, started if it is not there; Ray must be connected."""
    import ray

    actor = (
        ray.remote(_Committers)
        .options(
            name=ACTOR,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,
        )
        .remote()
    )
    return CommitterClient(actor, Location.of(settings))


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HeadwayError):
            raise error.cause from None
        raise
