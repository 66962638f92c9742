from __future__ import annotations

import time
from pathlib import Path

import pytest

from headway.core.clock import SystemClock
from headway.core.errors import CorruptState
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.lake.committer_actor import committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location, open_catalog, write_spool
from headway.features.lake.upkeep import APPENDS_PER_EXPIRY
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE
from tests.features.samples import batch


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


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_actor_keeps_the_table_in_order_as_it_is_appended_to(tmp_path: Path) -> None:
    settings, clock = Settings(home=tmp_path), SystemClock()
    client = committer(settings)
    for number in range(APPENDS_PER_EXPIRY):
        client.append(SOURCE, batch(number * 10, 10), str(number))
    reader = LakeReader(settings, MemoryAudit(clock), clock)
    analyst = Principal(sub="a", kind="human", scopes=frozenset({"data:read"}), purpose="testing", expires=2**62)
    deadline = clock.monotonic() + 120
    while len(reader.plan(SOURCE, analyst, "testing").files) > SOURCE.buckets:
        assert clock.monotonic() < deadline
        time.sleep(0.2)
    while len(open_catalog(Location.of(settings)).load_table(SOURCE.table).metadata.snapshots) > APPENDS_PER_EXPIRY:
        assert clock.monotonic() < deadline
        time.sleep(0.2)
    assert reader.scan(SOURCE, analyst, "testing").num_rows == APPENDS_PER_EXPIRY * 10
    assert client.append(SOURCE, batch(0, 10), "0") == client.append(SOURCE, batch(0, 10), "0")
    assert client.upsert(SOURCE, batch(0, 5), "u", ["payment"])
    assert reader.scan(SOURCE, analyst, "testing").num_rows == APPENDS_PER_EXPIRY * 10
