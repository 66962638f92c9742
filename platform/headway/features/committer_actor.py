"""The writer of a cluster's lake: one named actor commits for everybody, and keeps the tables in order as it does.

The embedded catalog is slow under concurrent writers, and small commits make small files; so writers hand over
batches. Upkeep follows the number of appends and goes in steps of about a second, between which appends get their turn.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from headway.core.errors import HeadwayError
from headway.core.ray_session import run_in_background
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.features.committer import Batch, Committer
from headway.features.definitions import EventSource
from headway.features.lake import Location, TableSpec, spec_of
from headway.features.lake_retention import Retention
from headway.features.lake_upkeep import Compacted, Expired

_LOG = logging.getLogger(__name__)
ACTOR = "headway-committer"
NAMESPACE = "headway"
APPENDS_PER_COMPACTION = 8
APPENDS_PER_EXPIRY = 32


class _Committers:
    """What runs in the actor: one committer per lake, made on first use, and the upkeep that appends make due."""

    def __init__(self) -> None:
        run_in_background()
        self._by_location: dict[Location, Committer] = {}
        self._appends: Counter[tuple[Location, str]] = Counter()

    def act(self, location: Location, method: str, *given: Any, **named: Any) -> Any:
        return getattr(self._of(location), method)(*given, **named)

    def append_many(
        self, location: Location, table: EventSource | TableSpec, batches: Sequence[tuple[Batch, str]]
    ) -> int:
        snapshot = self._of(location).append_many(table, batches)
        name = spec_of(table).name
        self._appends[location, name] += 1
        if self._appends[location, name] % APPENDS_PER_COMPACTION == 0:
            self._later("compact", location, name)
        if self._appends[location, name] % APPENDS_PER_EXPIRY == 0:
            self._later("expire", location, name)
        return snapshot

    def compact(self, location: Location, name: str) -> None:
        """One step, and another after whatever waits by then, until nothing is left."""
        with _told(f"compact {name}"):
            if self._of(location).compact_step(name).left:
                self._later("compact", location, name)

    def expire(self, location: Location, name: str) -> None:
        """The same for snapshots."""
        with _told(f"expire {name}"):
            if self._of(location).expire_step(name).left:
                self._later("expire", location, name)

    def _later(self, method: str, location: Location, name: str) -> None:
        import ray

        getattr(ray.get_runtime_context().current_actor, method).remote(location, name)

    def _of(self, location: Location) -> Committer:
        if location not in self._by_location:
            self._by_location[location] = Committer(location)
        return self._by_location[location]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Log what goes wrong with upkeep that nobody waits for; it is tried again when it is due next."""
    try:
        yield
    except Exception:
        _LOG.exception("%s failed", what)


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
        return _result(self._actor.act.remote(self._location, method, *given, **named))


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
