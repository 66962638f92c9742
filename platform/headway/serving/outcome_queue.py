"""Outcomes on their way to becoming events of a source: files that survive a kill at any point.

An outcome lies in `waiting` until its decision is in the lake, then in `ready` as an event until that is published.
A file of ready events appears whole and names its decisions, so that an outcome which a kill left in both places is
taken out of the waiting ones before anything else is done. A published file is removed; killed before that, it is
published again under the same batch id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from headway.core.canonical import sha256
from headway.core.times import DAY, MINUTE, SECOND
from headway.features.lake.tables import read_spool, write_spool
from headway.features.outcomes import DECISION_ID
from headway.governance.files import locked, private_folder, sync_folder

_META = b"headway.waiting"
_LOOK_AT_ONCE = 50_000
"""Outcomes whose decisions are looked up together."""
Lookup: TypeAlias = Callable[[pa.Table], pa.Table]
"""Outcomes → events of those whose decision is there, with `decision_id`."""
Publish: TypeAlias = Callable[[pa.Table, str], None]
"""(rows with `decision_id`, batch id); repeated after a kill."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long and how many outcomes wait for their decision."""

    age: int = DAY
    """Microseconds; a decision log that loses rows never brings some decisions."""
    rows: int = 1_000_000
    first: int = 5 * SECOND
    """Until the next look; later ones when the wait has doubled."""
    longest: int = 10 * MINUTE


class OutcomeQueue:
    """The outcomes of one source; one process at a time works on them."""

    def __init__(self, home: Path, source: str, patience: Patience | None = None) -> None:
        self._folder = home / "spool" / f"events.{source}"
        self._waiting, self._ready = self._folder / "waiting", self._folder / "ready"
        self._patience = patience or Patience()

    def put(self, outcomes: pa.Table, batch_id: str, now: int) -> None:
        """Let outcomes wait, on disk when this returns; the same batch again takes the place of the first."""
        self._keep(outcomes, batch_id, since=now, due=now)

    def work(self, lookup: Lookup, publish: Publish, give_up: Publish, now: int) -> int:
        """Publish what can be, give up what waited too long, and return how many outcomes were published."""
        if not self._folder.is_dir():
            return 0
        with locked(self._folder):
            self._reconcile()
            done = self._publish(publish)
            for path, rows, since, due in self._due(now):
                found = pa.concat_tables(
                    lookup(rows.slice(begin, _LOOK_AT_ONCE)) for begin in range(0, rows.num_rows, _LOOK_AT_ONCE)
                )
                if found.num_rows:
                    self._write(self._ready, _name(found), found)
                left = _without(rows, found[DECISION_ID])
                wait = min(max(now - since, self._patience.first), self._patience.longest)
                self._replace(path, left, since=since, due=max(due, now) + wait)
                done += self._publish(publish)
            self._give_up(give_up, now)
        return done

    def waiting(self) -> int:
        """Return how many outcomes wait for their decision."""
        return sum(rows.num_rows for _, rows, _, _ in self._files())

    def _publish(self, publish: Publish) -> int:
        done = 0
        for path in sorted(self._ready.glob("*.arrow")):
            events = read_spool(path)
            publish(events, path.stem)
            path.unlink()
            done += events.num_rows
        return done

    def _reconcile(self) -> None:
        """Take ready outcomes out of the waiting ones: a kill lay between the two."""
        ready = [read_spool(path)[DECISION_ID] for path in self._ready.glob("*.arrow")]
        if not ready:
            return
        taken = pa.chunked_array([chunk for column in ready for chunk in column.chunks], pa.string())
        for path, rows, since, due in self._files():
            left = _without(rows, taken)
            if left.num_rows != rows.num_rows:
                self._replace(path, left, since=since, due=due)

    def _give_up(self, give_up: Publish, now: int) -> None:
        """Hand over what waited too long, and of too many the oldest."""
        kept = 0
        for path, rows, since, _ in sorted(self._files(), key=lambda file: -file[2]):
            kept += rows.num_rows
            if since <= now - self._patience.age or kept > self._patience.rows:
                give_up(rows, path.stem)
                path.unlink()

    def _due(self, now: int) -> Iterator[tuple[Path, pa.Table, int, int]]:
        return ((path, rows, since, due) for path, rows, since, due in list(self._files()) if due <= now)

    def _files(self) -> Iterator[tuple[Path, pa.Table, int, int]]:
        for path in sorted(self._waiting.glob("*.arrow")):
            rows = read_spool(path)
            since, due = (int(part) for part in (rows.schema.metadata or {})[_META].split())
            yield path, rows.replace_schema_metadata(None), since, due

    def _replace(self, path: Path, rows: pa.Table, *, since: int, due: int) -> None:
        if rows.num_rows:
            self._keep(rows, path.stem, since=since, due=due)
        else:
            path.unlink()

    def _keep(self, rows: pa.Table, name: str, *, since: int, due: int) -> None:
        self._write(self._waiting, name, rows.replace_schema_metadata({_META: f"{since} {due}".encode()}))

    def _write(self, folder: Path, name: str, rows: pa.Table) -> None:
        private_folder(self._folder)
        write_spool(folder, name, rows)
        sync_folder(folder)


def _without(rows: pa.Table, taken: pa.ChunkedArray) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows[DECISION_ID], value_set=taken.combine_chunks())))


def _name(events: pa.Table) -> str:
    """Return a name that no other set of decisions has."""
    return sha256("\n".join(sorted(events[DECISION_ID].to_pylist())).encode())[:32]
