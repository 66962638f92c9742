from __future__ import annotations

import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import Unavailable
from headway.core.types import Principal
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location, open_catalog, write_spool
from headway.governance.audit_event import MemoryAudit
from tests.features.lake.troubles import held, small_disk
from tests.features.oracle import SOURCE
from tests.features.samples import batch


def large(n: int = 300_000) -> pa.Table:
    random = np.random.default_rng(1)
    ids = np.arange(1_000, 1_000 + n)
    return pa.table(
        {"payment": ids, "card": random.integers(0, 2**60, n), "amount": random.random(n), "event_time": ids}
    )


def rows(lake: Location) -> int:
    return int(open_catalog(lake).load_table(SOURCE.table).scan().to_arrow().num_rows)


def unnamed(lake: Location) -> list[Path]:
    """Data files that no snapshot names."""
    table = open_catalog(lake).load_table(SOURCE.table)
    named = {path.removeprefix("file://") for path in table.inspect.all_files()["file_path"].to_pylist()}
    folder = Path(table.location().removeprefix("file://"))
    return [path for path in folder.rglob("*.parquet") if str(path) not in named]


def test_a_locked_catalog_is_said_and_the_batch_can_be_repeated(
    tmp_path: Path, clock: ManualClock, analyst: Principal
) -> None:
    lake = Location(catalog_uri=f"sqlite:///{tmp_path}/c.db?timeout=0.1", warehouse=f"file://{tmp_path}/w")
    committer = Committer(lake, clock)
    first = committer.append(SOURCE, batch(0, 10), "a")
    reader = LakeReader(lake, MemoryAudit(clock), clock)
    with held(tmp_path / "c.db"):
        with pytest.raises(Unavailable, match=r"append to events\.payments: the lake's catalog is locked") as caught:
            committer.append(SOURCE, batch(10, 10), "b")
        assert caught.value.retry_after_s > 0
        for attempt in (
            lambda: Committer(lake, clock),
            lambda: reader.snapshot(SOURCE),
            lambda: reader.scan(SOURCE, analyst, "testing"),
        ):
            with pytest.raises(Unavailable, match="locked"):
                attempt()
    assert (reader.snapshot(SOURCE), rows(lake)) == (first, 10)
    assert committer.append(SOURCE, batch(10, 10), "b") != first
    assert rows(lake) == 20
    assert unnamed(lake) == []


def test_no_file_may_grow_further(lake: Location, clock: ManualClock, tmp_path: Path) -> None:
    committer = Committer(lake, clock)
    first = committer.append(SOURCE, batch(0, 10), "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, limits[1]))
    try:
        with pytest.raises(Unavailable, match="the disk is full"):
            committer.append(SOURCE, large(), "b")
        with pytest.raises(Unavailable, match=r"spool b\.arrow: the disk is full"):
            write_spool(tmp_path / "spool", "b", large())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "spool").iterdir()) == []
    assert unnamed(lake) == []
    assert rows(lake) == 10
    assert committer.append(SOURCE, large(), "b") != first == committer.append(SOURCE, batch(0, 10), "a")
    assert rows(lake) == 300_010


def test_a_new_catalog_may_be_opened_by_several_at_once(tmp_path: Path) -> None:
    opened = []
    for number in range(8):
        lake = Location(catalog_uri=f"sqlite:///{tmp_path}/{number}.db", warehouse=f"file://{tmp_path}/w")
        start = threading.Barrier(4)

        def open_it(lake: Location = lake, start: threading.Barrier = start) -> None:
            start.wait()
            opened.append(open_catalog(lake))

        threads = [threading.Thread(target=open_it) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(opened) == 32


@pytest.fixture
def small() -> Iterator[Path]:
    with small_disk() as folder:
        yield folder


def test_a_full_disk_leaves_no_part_of_a_batch(small: Path, clock: ManualClock) -> None:
    lake = Location(catalog_uri=f"sqlite:///{small}/c.db", warehouse=f"file://{small}/w")
    committer = Committer(lake, clock)
    committer.append(SOURCE, batch(0, 10), "a")
    with pytest.raises(Unavailable, match="the disk is full"):
        committer.append(SOURCE, large(), "b")
    assert rows(lake) == 10
    assert unnamed(lake) == []
    assert committer.append(SOURCE, batch(10, 10), "c"), "a small batch still fits"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
    committer.append(SOURCE, large(), "b")
    assert rows(lake) == 300_020
