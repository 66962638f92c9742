"""The writer of a cluster's lake: one named actor commits for everybody, and keeps the tables in order beside it.

The embedded catalog is slow under concurrent writers, and small commits make small files; so writers hand over
batches, and those that wait for one table are committed together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Any

from headway.core.clock import SystemClock
from headway.core.errors import HeadwayError
from headway.core.ray_session import NAMESPACE, run_in_background
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.features.definitions import EventSource
from headway.features.lake.committer import Batch, Committer
from headway.features.lake.compaction import Compacted
from headway.features.lake.expiry import Expired
from headway.features.lake.group_commit import GroupCommit
from headway.features.lake.retention import Retention
from headway.features.lake.tables import Location, TableSpec
from headway.features.lake.upkeep import IDENTITY, Upkeep
from headway.governance.audit import audit_log
from headway.governance.audit_event import AuditSink

ACTOR = "headway-committer"
CALLERS = 64
"""Calls that are taken at a time; others wait before the actor."""


class _Committers:
    """What runs in the actor, in as many threads as callers wait: a committer per lake, made on first use."""

    def __init__(self) -> None:
        run_in_background()
        self._guard = Lock()
        self._by_location: dict[Location, _Lake] = {}

    def act(self, settings: Settings, method: str, *given: Any, **named: Any) -> Any:
        return getattr(self._of(settings).committer, method)(*given, **named)

    def append_many(
        self, settings: Settings, table: EventSource | TableSpec, batches: Sequence[tuple[Batch, str]]
    ) -> int:
        return self._of(settings).commits.append_many(table, batches)

    def _of(self, settings: Settings) -> _Lake:
        location = Location.of(settings)
        with self._guard:
            if location not in self._by_location:
                self._by_location[location] = _Lake(location, audit_log(settings, IDENTITY, SystemClock()))
            return self._by_location[location]


class _Lake:
    """One lake: its committer, the queue before it and the upkeep beside it."""

    def __init__(self, location: Location, audit: AuditSink) -> None:
        self.committer = Committer(location)
        self.commits = GroupCommit(self.committer, Upkeep(self.committer, audit).appended)


class CommitterClient:
    """Speaks to the actor, with the same methods as `Committer`."""

    def __init__(self, actor: Any, settings: Settings) -> None:
        self._actor = actor
        self._settings = settings

    def append(self, table: EventSource | TableSpec, data: Batch, batch_id: str) -> int:
        """Append one batch; see `Committer.append`."""
        return self.append_many(table, [(data, batch_id)])

    def append_many(self, table: EventSource | TableSpec, batches: Sequence[tuple[Batch, str]]) -> int:
        """Append several batches in one commit; see `Committer.append_many`."""
        return int(_result(self._actor.append_many.remote(self._settings, table, list(batches))))

    def upsert(self, table: EventSource | TableSpec, data: Batch, batch_id: str, keys: Sequence[str]) -> int:
        """Replace rows by key; see `Committer.upsert`."""
        return int(self._act("upsert", table, data, batch_id, list(keys)))

    def ensure(self, table: EventSource | TableSpec) -> None:
        """Create the table if it is new."""
        self._act("ensure", table)

    def compact_step(self, name: str, *, whole: bool = False) -> Compacted:
        """Merge some small files; see `Committer.compact_step`."""
        done: Compacted = self._act("compact_step", name, whole=whole)
        return done

    def expire_step(self, name: str, keep: Collection[int] = (), retention: Retention | None = None) -> Expired:
        """Let some old snapshots go; see `Committer.expire_step`."""
        done: Expired = self._act("expire_step", name, frozenset(keep), retention)
        return done

    def remove_orphans(self, name: str, older_than: int = DAY) -> int:
        """Delete files that nothing names; see `Committer.remove_orphans`."""
        return int(self._act("remove_orphans", name, older_than))

    def hold(self, pin: str, snapshots: Mapping[str, int]) -> None:
        """Pin snapshots; see `Committer.hold`."""
        self._act("hold", pin, dict(snapshots))

    def release(self, pin: str, tables: Collection[str]) -> None:
        """Let go of a pin; see `Committer.release`."""
        self._act("release", pin, sorted(tables))

    def _act(self, method: str, *given: Any, **named: Any) -> Any:
        return _result(self._actor.act.remote(self._settings, method, *given, **named))


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
            max_concurrency=CALLERS,
        )
        .remote()
    )
    return CommitterClient(actor, settings)


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HeadwayError):
            raise error.cause from None
        raise
