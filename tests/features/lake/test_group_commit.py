from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from headway.core.clock import ManualClock, SystemClock
from headway.core.errors import CorruptState, Unavailable
from headway.core.types import Principal
from headway.features.lake import group_commit
from headway.features.lake.committer import Committer
from headway.features.lake.group_commit import GroupCommit
from headway.features.lake.tables import Location, open_catalog
from tests.features.lake.test_tables import reader_of
from tests.features.oracle import SOURCE
from tests.features.samples import batch

CALLERS = 8


def together(commits: GroupCommit, acts: list[Callable[[], int]]) -> list[Future[int]]:
    """Run acts that all wait before the first of them can commit."""
    clock = SystemClock()
    deadline = clock.monotonic() + 60
    with ThreadPoolExecutor(len(acts)) as pool:
        with commits._turns[SOURCE.table]:
            found = [pool.submit(act) for act in acts]
            while len(commits._waiting[SOURCE.table]) < len(acts):
                assert clock.monotonic() < deadline
                time.sleep(0.001)
        return found


def appending(commits: GroupCommit, number: int) -> Callable[[], int]:
    return lambda: commits.append_many(SOURCE, [(batch(number * 10, 10), f"b{number}")])


def snapshots(lake: Location) -> int:
    return len(open_catalog(lake).load_table(SOURCE.table).metadata.snapshots)


def test_who_waits_is_committed_together_each_under_its_own_id(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    committer = Committer(lake, clock)
    committer.ensure(SOURCE)
    told: list[str] = []
    commits = GroupCommit(committer, told.append)
    acts = [appending(commits, number) for number in (*range(CALLERS), 0, 1)]
    found = [future.result() for future in together(commits, acts)]
    assert snapshots(lake) == len(told) == 1
    assert found[:2] == found[-2:]
    reader, _ = reader_of(lake, clock)
    assert sorted(reader.scan(SOURCE, analyst, "testing")["payment"].to_pylist()) == list(range(CALLERS * 10))
    for number, snapshot in enumerate(found[:CALLERS]):
        rows = reader.scan(SOURCE, analyst, "testing", snapshot_id=snapshot)["payment"].to_pylist()
        assert set(range(number * 10, number * 10 + 10)) <= set(rows)
    assert [Committer(lake, clock).append(SOURCE, batch(0, 1), f"b{n}") for n in range(CALLERS)] == found[:CALLERS]
    assert commits.append_many(SOURCE, []) in found


def test_a_batch_that_cannot_be_committed_fails_its_own_caller_only(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    committer = Committer(lake, clock)
    committer.ensure(SOURCE)
    commits = GroupCommit(committer)

    acts = [appending(commits, number) for number in range(CALLERS)]
    acts[3] = lambda: commits.append_many(SOURCE, [(Path("gone.arrow"), "b3")])
    found = together(commits, acts)
    assert [number for number, future in enumerate(found) if future.exception() is not None] == [3]
    with pytest.raises(CorruptState, match=r"gone\.arrow"):
        found[3].result()
    rows = reader_of(lake, clock)[0].scan(SOURCE, analyst, "testing")["payment"].to_pylist()
    assert sorted(rows) == [row for row in range(CALLERS * 10) if row // 10 != 3]


def test_a_lake_that_is_away_is_told_to_all_and_asked_once(
    lake: Location, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = Committer(lake, clock)
    commits = GroupCommit(committer)
    asked = []

    def away(batches: list[object]) -> dict[str, int]:
        asked.append(len(batches))
        raise Unavailable("locked", retry_after_s=1.0, hint="wait")

    monkeypatch.setattr(committer, "append_all", away)
    found = together(commits, [appending(commits, n) for n in range(CALLERS)])
    assert all(isinstance(future.exception(), Unavailable) for future in found)
    assert asked == [CALLERS]


def test_a_group_is_bounded_in_bytes(lake: Location, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    committer = Committer(lake, clock)
    committer.ensure(SOURCE)
    commits = GroupCommit(committer)
    monkeypatch.setattr(group_commit, "GROUP_BYTES", 2 * batch(0, 10).nbytes)
    for future in together(commits, [appending(commits, n) for n in range(CALLERS)]):
        assert future.result()
    assert CALLERS // 2 <= snapshots(lake) < CALLERS
