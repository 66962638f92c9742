from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from headway.cluster.usage import Decisions, decisions, reads
from headway.core.clock import ManualClock
from headway.core.errors import Forbidden, NotFound
from headway.core.times import DAY, HOUR
from headway.core.types import Principal
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location, TableSpec
from headway.governance.audit import AuditLog
from headway.governance.audit_event import MemoryAudit

LOG = TableSpec(
    name="decisions.shop",
    columns={"decision_id": "string", "arm": "string", "model_version": "string"},
    purposes=("monitoring",),
)


def who(*scopes: str) -> Principal:
    return Principal(sub="w", kind="workload", scopes=frozenset(scopes), purpose="monitoring", expires=2**60)


def test_each_version_is_counted_over_all_files_and_rules_are_not(tmp_path: Path, clock: ManualClock) -> None:
    now = clock.now()
    location = Location(catalog_uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}/w")
    writer = Committer(location, clock)

    def rows(*made: tuple[str, str, int]) -> pa.Table:
        arms, versions, times = zip(*made, strict=True)
        return pa.table(
            {
                "decision_id": [str(i) for i in range(len(made))],
                "arm": list(arms),
                "model_version": list(versions),
                "event_time": [0] * len(made),
                "known_time": list(times),
            }
        )

    writer.append(LOG, rows(("champion", "1", now - 3 * DAY), ("rules", "", now), ("champion", "2", now - HOUR)), "a")
    writer.append(LOG, rows(("champion", "2", now - 2 * HOUR), ("previous", "2", now - 2 * DAY)), "b")
    reader = LakeReader(location, MemoryAudit(clock), clock)
    assert decisions("shop", reader, who("data:read"), now=now) == [
        Decisions(use_case="shop", version="2", total=3, last_day=2, last=now - HOUR),
        Decisions(use_case="shop", version="1", total=1, last_day=0, last=now - 3 * DAY),
    ]
    with pytest.raises(NotFound):
        decisions("shops", reader, who("data:read"), now=now)
    with pytest.raises(Forbidden):
        decisions("shop", reader, who("audit:read"), now=now)


def test_reads_are_counted_by_who_and_why(tmp_path: Path, clock: ManualClock) -> None:
    for writer, actor, action, outcome, snapshot in (
        ("cli", "ana", "data.read", "done", 1),
        ("cli", "ana", "data.read", "denied", 1),
        ("cli", "ana", "features.join", "done", 1),
        ("notebook", "ana", "data.read", "done", 2),
        ("notebook", "bob", "data.read", "done", 2),
    ):
        clock.advance(1)
        AuditLog(tmp_path / "audit", writer, clock).append(
            actor=actor, kind="human", action=action, resource=f"events.visits@{snapshot}", purpose="model_training",
            outcome=outcome,
        )  # fmt: skip
    found = reads(tmp_path / "audit", who("audit:read"))
    assert [(one.table, one.actor, one.purpose, one.total) for one in found] == [
        ("events.visits", "ana", "model_training", 2),
        ("events.visits", "bob", "model_training", 1),
    ]
    assert found[1].last == clock.now()
    with pytest.raises(Forbidden, match="audit:read"):
        reads(tmp_path / "audit", who("data:read"))
