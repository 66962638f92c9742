"""What people do to the lake: merge small files, and let old snapshots go that nothing pins."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from headway.cluster.compose import Installation
from headway.core.errors import AccessError, NotFound, NotSigned
from headway.core.progress import Progress
from headway.core.times import DAY, HOUR
from headway.core.types import Principal
from headway.features.lake.compaction import Compacted
from headway.features.lake.expiry import Expired
from headway.features.lake.retention import Retention
from headway.features.lake.tables import Location, open_catalog, open_table, table_names
from headway.governance.statement import ModelStatement, read_statement

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What expiry did to a table."""

    expired: Expired
    orphans: int
    """Files that writes had left which never came to an end."""


def compact(
    at: Installation, principal: Principal, progress: Progress, tables: Sequence[str] = ()
) -> Mapping[str, Compacted]:
    """Merge all small files of some tables, or of every one; appends go on between the steps. Needs `lake:write`."""

    def act(name: str) -> Compacted:
        with progress.stage(f"compact {name}") as stage:
            done = at.committer.compact_step(name, whole=True)
            while done.left:
                stage.advance(done.merged)
                done += at.committer.compact_step(name, whole=True)
            stage.note(f"{done.merged:,} files into {done.written:,}, {done.rows:,} rows")
        return done

    return _governed(at, principal, "lake.compact", tables, act)


def expire(
    at: Installation,
    principal: Principal,
    progress: Progress,
    tables: Sequence[str] = (),
    *,
    newest: int = 20,
    hours: int = 24,
    days: int = 30,
) -> Mapping[str, Cleaned]:
    """Let snapshots of some tables go, or of every one, and delete what has been in no snapshot for an hour.

    The newest stay, the last of each hour and day back to the bounds, and what trainings and versions pin. Needs
    `lake:write`.
    """
    retention = Retention(newest=newest, hourly=hours * HOUR, daily=days * DAY)

    def act(name: str) -> Cleaned:
        with progress.stage(f"expire {name}") as stage:
            done = at.committer.expire_step(name, keep, retention)
            while done.left:
                stage.advance(done.snapshots)
                done += at.committer.expire_step(name, keep, retention)
            orphans = at.committer.remove_orphans(name)
            stage.note(f"{done.snapshots:,} snapshots, {done.removed + orphans:,} files deleted")
        return Cleaned(expired=done, orphans=orphans)

    keep: frozenset[int] = frozenset()

    def pinned() -> None:
        nonlocal keep
        with progress.stage("look at versions") as stage:
            keep = trained_on(at)
            stage.note(f"{len(keep):,} snapshots that they were trained on stay")

    return _governed(at, principal, "lake.expire", tables, act, before=pinned)


def trained_on(at: Installation) -> frozenset[int]:
    """Return the snapshots that the statements of registered versions name, those without a pin included."""
    worker = at.workload("headway-lake", ["registry:read"], "model_training")
    found: set[int] = set()
    for use_case in at.project.use_cases():
        for version in at.registry.versions(use_case, worker):
            try:
                envelope = read_statement(version.path)
            except (NotSigned, NotFound):
                continue  # reserved or failed, or its files are on another machine: its pin holds there
            statement = msgspec.json.decode(base64.b64decode(envelope.payload), type=ModelStatement)
            found |= set(statement.snapshots.values())
    return frozenset(found)


def _governed(
    at: Installation,
    principal: Principal,
    action: str,
    tables: Sequence[str],
    act: Callable[[str], _T],
    *,
    before: Callable[[], None] = lambda: None,
) -> dict[str, _T]:
    """Do something to tables one by one, each told to the audit log before and after."""

    def record(name: str, outcome: str) -> None:
        at.audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action=action,
            resource=name,
            purpose=principal.purpose,
            outcome=outcome,
        )

    try:
        principal.require("lake", "write")
    except AccessError:
        record(",".join(tables) or "*", "denied")
        raise
    before()
    catalog = open_catalog(Location.of(at.settings))
    done = {}
    for name in tables:
        open_table(catalog, name)
    for name in tables or table_names(catalog):
        record(name, "intended")
        try:
            done[name] = act(name)
        except BaseException:
            record(name, "failed")
            raise
        record(name, "done")
    return done
