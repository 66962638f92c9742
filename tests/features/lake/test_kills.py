from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from headway.features.lake.committer import Committer
from headway.features.lake.tables import Location, open_catalog
from tests.faults.scorecard import Record, record
from tests.features.lake.processes import RETENTION, ROWS
from tests.features.oracle import SOURCE
from tests.features.samples import batch

WRITERS, BATCHES, KILLS, SECONDS = 8, 5, 12, 800.0
ROUNDS = 12
YOUNG_S = 2.0
"""A process that is still importing has nothing to lose."""


def start(lake: Location, role: str, *numbers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.features.lake.processes", role, lake.catalog_uri, lake.warehouse]
    out = subprocess.PIPE if role == "die" else subprocess.DEVNULL
    return subprocess.Popen([*command, *map(str, numbers)], stdout=out)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_eight_writers_and_upkeep_killed_at_random_neither_lose_nor_double_a_row(
    tmp_path: Path, record_property: Record
) -> None:
    lake = Location(catalog_uri=f"sqlite:///{tmp_path}/c.db?timeout=1", warehouse=f"file://{tmp_path}/w")
    Committer(lake).ensure(SOURCE)
    dice, deadline = random.Random(11), time.monotonic() + SECONDS
    firsts = {writer: writer * BATCHES for writer in range(WRITERS)}
    running = {writer: start(lake, "write", first, BATCHES) for writer, first in firsts.items()}
    running[WRITERS] = start(lake, "keep-up")
    kills, born = 0, dict.fromkeys(running, time.monotonic())
    try:
        while len(running) > 1:
            assert time.monotonic() < deadline, "the writers do not come to an end"
            time.sleep(dice.uniform(0.1, 1.0))
            for number, process in list(running.items()):
                code = process.poll()
                assert code in (None, 0), "only this test ends one early"
                if code == 0:
                    del running[number]
            old = [number for number in running if time.monotonic() - born[number] > YOUNG_S]
            if kills < KILLS and old:
                kills += 1
                victim = dice.choice(old)
                born[victim] = time.monotonic()
                running[victim].kill()
                running[victim].wait()
                role = "keep-up" if victim == WRITERS else "write"
                numbers = () if victim == WRITERS else (firsts[victim], BATCHES)
                running[victim] = start(lake, role, *numbers)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    began = time.monotonic()
    lost, twice = check(lake, WRITERS * BATCHES)
    record(
        record_property, area="lake", fault="writers and upkeep are killed", sent=WRITERS * BATCHES * ROWS, unit="rows",
        lost=lost, twice=twice, seconds=time.monotonic() - began,
        done=f"{kills} kills at random of eight writers on one catalog, and of compaction and expiry beside them",
    )  # fmt: skip


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_process_killed_at_any_call_leaves_the_lake_whole(tmp_path: Path, record_property: Record) -> None:
    lake = Location(catalog_uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}/w")
    process = start(lake, "die", ROUNDS, 5)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert int(printed) >= ROUNDS // 2
    began = time.monotonic()
    lost, twice = check(lake, ROUNDS)
    record(
        record_property, area="lake", fault="a writer is killed at any call", sent=ROUNDS * ROWS, unit="rows",
        lost=lost, twice=twice, seconds=time.monotonic() - began,
        done=f"{int(printed)} processes ended themselves at random calls while they append, compact and expire",
    )  # fmt: skip


def check(lake: Location, batches: int) -> tuple[int, int]:
    """Return how many rows are missing and how many there twice; nothing else is there after the upkeep."""
    committer = Committer(lake)
    while committer.compact_step(SOURCE.table, whole=True).left:
        pass
    committer.expire_step(SOURCE.table, (), RETENTION)
    committer.remove_orphans(SOURCE.table, older_than=-(2**50))
    table = open_catalog(lake).load_table(SOURCE.table)
    found, sent = Counter(table.scan().to_arrow()["payment"].to_pylist()), Counter(range(batches * ROWS))
    assert len(table.metadata.snapshots) <= RETENTION.newest + 1
    assert all(committer.append(SOURCE, batch(0, 1), f"b{number}") for number in range(batches))
    assert table.refresh().scan().count() == found.total()
    return (sent - found).total(), (found - sent).total()
