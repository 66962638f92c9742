"""How often features are read, and by whom, from what is recorded anyway: the decision logs and the audit chains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headway.core.times import DAY
from headway.core.types import Principal
from headway.governance.audit_verify import SUFFIX

if TYPE_CHECKING:
    from headway.features.lake.reader import LakeReader

_VERSION, _ARM, _DECIDED = "model_version", "arm", "known_time"


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What one model version decided with the features of its service; every one read all of its views once."""

    use_case: str
    version: str
    total: int
    last_day: int
    """In the 24 hours before the catalogue was made."""
    last: int
    """When the last one was made, UTC microseconds."""


@dataclass(frozen=True, kw_only=True)
class Reads:
    """Governed reads of a lake table by one identity for one purpose: training sets, joins, checks."""

    table: str
    actor: str
    purpose: str
    total: int
    last: int
    """UTC microseconds."""


class _Event(msgspec.Struct):
    """What is wanted of an audit event."""

    time: int
    actor: str
    action: str
    resource: str
    purpose: str
    outcome: str


def decisions(use_case: str, reader: LakeReader, principal: Principal, *, now: int) -> list[Decisions]:
    """Return what each version decided by features, most first; NotFound before the first decision.

    Three columns are read, file by file: memory does not grow with the log. Answers by rules read nothing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from headway.features.lake.reader import read_files

    plan = reader.plan(f"decisions.{use_case}", principal, principal.purpose)
    parts = []
    for path in plan.paths:
        rows = read_files(plan.schema, [path], [_VERSION, _ARM, _DECIDED])
        rows = rows.filter(pc.not_equal(rows[_ARM], "rules"))
        recent = pc.greater(rows[_DECIDED], now - DAY).cast(pa.int64())
        table = pa.table({_VERSION: rows[_VERSION], "recent": recent, _DECIDED: rows[_DECIDED]})
        grouped = table.group_by(_VERSION).aggregate([("recent", "count"), ("recent", "sum"), (_DECIDED, "max")])
        parts.append(grouped)
    if not parts:
        return []
    whole = pa.concat_tables(parts).group_by(_VERSION)
    found = whole.aggregate([("recent_count", "sum"), ("recent_sum", "sum"), (f"{_DECIDED}_max", "max")])
    made = [
        Decisions(
            use_case=use_case,
            version=row[_VERSION],
            total=row["recent_count_sum"],
            last_day=row["recent_sum_sum"],
            last=row[f"{_DECIDED}_max_max"],
        )
        for row in found.to_pylist()
    ]
    return sorted(made, key=lambda one: (-one.total, one.version))


def reads(audit: Path, principal: Principal) -> list[Reads]:
    """Return the reads in the audit chains of a folder by table, most first; needs `audit:read`.

    The chains are taken as they are: `headway audit verify` says whether they hold.
    """
    principal.require("audit", "read")
    counts: dict[tuple[str, str, str], tuple[int, int]] = {}
    for event in _events(sorted(audit.glob(f"*{SUFFIX}"))):
        key = (event.resource.partition("@")[0], event.actor, event.purpose)
        total, last = counts.get(key, (0, 0))
        counts[key] = (total + 1, max(last, event.time))
    found = [
        Reads(table=table, actor=actor, purpose=purpose, total=total, last=last)
        for (table, actor, purpose), (total, last) in counts.items()
    ]
    return sorted(found, key=lambda one: (one.table, -one.total, one.actor, one.purpose))


def _events(files: Iterable[Path]) -> Iterator[_Event]:
    decoder = msgspec.json.Decoder(_Event)
    for path in files:
        with path.open("rb") as lines:
            for line in lines:
                if b'"data.read"' not in line or not line.endswith(b"\n"):
                    continue
                event = decoder.decode(line)
                if event.action == "data.read" and event.outcome == "done":
                    yield event
