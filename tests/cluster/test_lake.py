from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headway.cluster.lake import compact, expire
from headway.cluster.lake_status import lake_status
from headway.core.clock import SystemClock
from headway.core.errors import Forbidden, NotFound
from headway.core.progress import RecordedProgress
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.lake.committer import Committer
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE
from tests.features.samples import batch

SCOPES = ("data:read", "lake:write")


def who(*scopes: str) -> Principal:
    return Principal(sub="ana", kind="human", scopes=frozenset(scopes), purpose="testing", expires=2**62)


@pytest.fixture
def at(tmp_path: Path) -> Any:
    """An installation whose committer is in this process and whose project has no use case."""
    settings, clock = Settings(home=tmp_path), SystemClock()
    committer = Committer(Location.of(settings), clock)
    for number in range(6):
        committer.append(SOURCE, batch(number * 10, 10), str(number))
    return SimpleNamespace(
        settings=settings,
        committer=committer,
        audit=MemoryAudit(clock),
        project=SimpleNamespace(use_cases=lambda: []),
        workload=lambda *given: who(*given[1]),
    )


def acts(at: Any) -> list[tuple[str, str, str]]:
    return [(event.action, event.resource, event.outcome) for event in at.audit.events]


def test_upkeep_is_done_and_told(at: Any) -> None:
    progress = RecordedProgress()
    (before,) = lake_status(at.settings, who(*SCOPES))
    assert (before.rows, before.small, before.snapshots) == (60, before.files, 6)
    merged = compact(at, who(*SCOPES), progress)
    assert merged[SOURCE.table].rows == 60
    cleaned = expire(at, who(*SCOPES), progress, [SOURCE.table], newest=1, hours=0, days=0)
    assert cleaned[SOURCE.table].expired.snapshots == 6
    (after,) = lake_status(at.settings, who(*SCOPES))
    assert (after.rows, after.small, after.snapshots, after.pinned) == (60, 0, 1, 0)
    assert after.files < before.files <= after.waiting
    stages = [f"compact {SOURCE.table}", "look at versions", f"expire {SOURCE.table}"]
    assert [stage.name for stage in progress.stages] == stages
    name = SOURCE.table
    assert acts(at) == [
        ("lake.compact", name, "intended"), ("lake.compact", name, "done"),
        ("lake.expire", name, "intended"), ("lake.expire", name, "done"),
    ]  # fmt: skip


def test_who_may_not_is_refused_and_told_and_a_wrong_name_too(at: Any) -> None:
    for act in (compact, expire):
        with pytest.raises(Forbidden):
            act(at, who("data:read"), RecordedProgress())
        for name in ("events.payment", "payments", "", "a.b.c"):
            with pytest.raises(NotFound, match=SOURCE.table):
                act(at, who(*SCOPES), RecordedProgress(), [name])
    assert acts(at) == [("lake.compact", "*", "denied"), ("lake.expire", "*", "denied")]
    assert lake_status(at.settings, who(*SCOPES))[0].snapshots == 6
    with pytest.raises(NotFound, match=SOURCE.table):
        lake_status(at.settings, who(*SCOPES), ["events.payment"])
    assert lake_status(at.settings, who(*SCOPES), [SOURCE.table]) == lake_status(at.settings, who(*SCOPES))
