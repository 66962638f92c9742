from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.clock import SystemClock
from headway.core.errors import CorruptState
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.committer_actor import committer
from headway.features.lake import write_spool
from headway.features.reader import LakeReader
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE
from tests.features.test_lake import batch


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_actor_commits_for_everybody(tmp_path: Path) -> None:
    settings, clock = Settings(home=tmp_path), SystemClock()
    first, second = committer(settings), committer(settings)
    first.ensure(SOURCE)
    spool = write_spool(tmp_path / "spool", "a", batch(0, 10))
    one = first.append(SOURCE, spool, "a")
    two = second.append_many(SOURCE, [(spool, "a"), (batch(10, 10), "b")])
    assert two != one == second.append(SOURCE, spool, "a")
    reader = LakeReader(settings, MemoryAudit(clock), clock)
    analyst = Principal(sub="a", kind="human", scopes=frozenset({"data:read"}), purpose="testing", expires=2**62)
    assert reader.scan(SOURCE, analyst, "testing").num_rows == 20
    with pytest.raises(CorruptState, match=r"gone\.arrow"):
        first.append(SOURCE, tmp_path / "gone.arrow", "c")
