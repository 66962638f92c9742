"""What the lake has and the online store does not, because it was away: bounded, and written before newer claims.

The lake is the buffer: nothing is kept twice. The online store itself says up to which snapshot of the lake it is
complete, so a store that was away, restarted empty or came back with an older state is caught up from there. The
control store only counts what waits, so that ingestion can push back while the online store cannot be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.errors import Conflict, Unavailable
from headway.core.times import HOUR, SECOND, format_duration
from headway.core.types import Principal
from headway.features.definitions import EventSource, View
from headway.features.lake.reader import LakeReader
from headway.features.materialize import materialize
from headway.features.online_store import ALL, OnlineStore
from headway.features.write_report import WriteReport

_KEY = "features:owed:{source}"
_ATTEMPTS = 10
_RETRY_AFTER_S = 5.0


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in the lake for the online store."""

    rows: int = 0
    since: int = 0
    """When the first of them came, UTC microseconds."""


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Catches the online store up from the lake; one ingester per source at a time."""

    online: OnlineStore
    reader: LakeReader
    control: ControlStore
    clock: Clock
    principal: Callable[[], Principal]
    """Who reads the lake, asked for when it is read: needs `data:read`."""
    max_rows: int = 1_000_000
    """With more rows waiting, ingestion is refused until the store is back."""
    max_age: int = HOUR
    """Microseconds after which it is refused, however few they are."""

    def owed(self, source: EventSource) -> Owed:
        """Return what waits."""
        record = self.control.get(_key(source))
        return Owed() if record is None else msgspec.json.decode(record.value, type=Owed)

    def require_room(self, source: EventSource) -> None:
        """Raise Unavailable where too much waits and the online store is still away."""
        owed = self.owed(source)
        age = self.clock.now() - owed.since
        if not owed.rows or (owed.rows <= self.max_rows and age <= self.max_age):
            return
        try:
            self.online.ping()
        except Unavailable as error:
            waited = format_duration(age // SECOND * SECOND)
            raise Unavailable(
                f"{owed.rows:,} rows of {source.name} wait for the online store since {waited}: {error.message}",
                retry_after_s=_RETRY_AFTER_S,
                hint="what was accepted is in the lake; repeat this batch when the store is back: headway status",
            ) from error

    def owe(self, source: EventSource, rows: int) -> None:
        """Count rows that are in the lake only."""
        for _ in range(_ATTEMPTS):
            record = self.control.get(_key(source))
            before = Owed() if record is None else msgspec.json.decode(record.value, type=Owed)
            more = Owed(rows=before.rows + rows, since=before.since if before.rows else self.clock.now())
            try:
                self.control.put(_key(source), msgspec.json.encode(more), expected=record.version if record else 0)
            except Conflict:
                continue
            return
        raise Conflict(f"what {source.name} owes keeps changing", hint="one ingester per source")

    def settled(self, source: EventSource) -> None:
        """Count from nothing again: the store has everything."""
        record = self.control.get(_key(source))
        if record is not None and msgspec.json.decode(record.value, type=Owed).rows:
            self.control.put(_key(source), msgspec.json.encode(Owed()), expected=record.version)

    def lacks(self, view: View, snapshot: int) -> bool | None:
        """Return whether the store lacks rows of the lake up to a snapshot (0: there are none).

        None: it was filled for a replay, with a part of the lake that no snapshot describes; the caller's word counts.
        """
        had = self.online.materialized(view).get(ALL)
        if had is not None:
            return had[0] != snapshot and not self._alike(view, had[0], snapshot)
        return None if self.online.watermark(view) else snapshot != 0

    def _alike(self, view: View, one: int, other: int) -> bool:
        """Whether two snapshots hold the same rows: compaction makes a new one of them."""
        stamp = self.reader.stamp(view.source, one)
        return bool(stamp) and stamp == self.reader.stamp(view.source, other)

    def catch_up(self, view: View, known_by: int) -> WriteReport:
        """Write what the lake has beyond the store, up to a known_time, and remember it.

        The view may be complete beyond that, because a stream feeds it too: then up to there.
        """
        who, complete = self.principal(), max(known_by, self.online.watermark(view))
        done = materialize([view], self.reader, self.online, who, who.purpose, known_by=complete, resume=True)
        (report,) = done.values()
        return report


def _key(source: EventSource) -> str:
    return _KEY.format(source=source.name)
