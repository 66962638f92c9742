from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from headway.core.errors import PlatformError, Unavailable
from headway.serving import spool as module
from headway.serving.drain import drain, read_prefix
from headway.serving.spool import Spool

SCHEMA = pa.schema([pa.field("n", pa.int64())])


def build(items: list[list[int]]) -> pa.RecordBatch:
    return pa.record_batch([pa.array([n for item in items for n in item], pa.int64())], schema=SCHEMA)


class Lake:
    def __init__(self) -> None:
        self.batches: dict[str, pa.Table] = {}
        self.calls = 0

    def append_many(self, table: str, batches: Sequence[tuple[pa.Table, str]]) -> str:
        self.calls += 1
        for data, batch_id in batches:
            self.batches.setdefault(batch_id, data)
        return table

    def values(self) -> list[int]:
        return sorted(n for data in self.batches.values() for n in data["n"].to_pylist())


def until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]  # a lambda
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def test_rows_are_durable_within_the_group_time_and_drained_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", "w", SCHEMA, build, durable=True)
    spool.add([1, 2], 2)
    until(lambda: spool.written == 2)
    [path] = (tmp_path / "s").glob("*.open")
    found = read_prefix(path)
    assert found is not None
    assert found["n"].to_pylist() == [1, 2]
    lake = Lake()
    assert drain(tmp_path / "s", "t", lake) == 0, "the file of a living writer is left alone"
    spool.add([3], 1)
    spool.close()
    assert drain(tmp_path / "s", "t", lake) == 3
    assert drain(tmp_path / "s", "t", lake) == 0
    assert lake.values() == [1, 2, 3]
    assert list((tmp_path / "s").iterdir()) == []


def test_files_roll_by_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", "w", SCHEMA, build, durable=True, roll_s=0.05)
    spool.add([1], 1)
    until(lambda: list((tmp_path / "s").glob("*.arrows")))
    spool.add([2], 1)
    spool.close()
    assert len(list((tmp_path / "s").glob("*.arrows"))) == 2


WRITER = """
import sys, time
from pathlib import Path
from tests.serving.test_spool import SCHEMA, build
from headway.serving.spool import Spool
spool = Spool(Path(sys.argv[1]), "w", SCHEMA, build, durable=True)
for n in range(100_000):
    spool.add([n], 1)
    if n % 50 == 0:
        time.sleep(0.001)
        print(spool.written, flush=True)
"""


def test_after_a_kill_every_synchronised_row_is_drained(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert process.stdout is not None
    said = 0
    for line in process.stdout:
        said = int(line)
        if said > 200:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    lake = Lake()
    rows = drain(tmp_path / "s", "t", lake)
    assert rows >= said
    assert lake.values() == list(range(rows))


def test_a_full_durable_spool_refuses_work_and_a_lossy_one_counts(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    durable = Spool(folder, "w", SCHEMA, build, durable=True, full_rows=1)
    lossy = Spool(tmp_path / "l", "w", SCHEMA, build, durable=False, full_rows=1)
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            (folder / "w-000001.open").write_bytes(b"")  # root may write everywhere: block the name instead
        durable.add([1, 2], 2)
        with pytest.raises(Unavailable, match="decision log"):
            durable.require_room()
        lossy.add([1, 2], 2)
        assert lossy.dropped == 2
        lossy.require_room()
    finally:
        folder.chmod(0o700)
        durable.close()
        lossy.close()


def test_who_waits_for_the_disk_waits_for_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_S", 60.0)
    spool = Spool(tmp_path / "s", "w", SCHEMA, build, durable=True)
    spool.add([1], 1)
    spool.add_and_sync([2, 3], 2)
    [path] = (tmp_path / "s").glob("*.open")
    found = read_prefix(path)
    assert found is not None
    assert found["n"].to_pylist() == [1, 2, 3]
    spool.close()


def test_waiting_for_a_disk_that_refuses_ends_and_the_rows_follow_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SYNC_S", 0.2)
    (tmp_path / "w-000001.open").write_bytes(b"")
    spool = Spool(tmp_path, "w", SCHEMA, build, durable=True)
    with pytest.raises(Unavailable, match=r"w-000001\.open is there already"):
        spool.add_and_sync([1], 1)
    spool.add([2], 1)
    until(lambda: spool.written == 2)
    spool.close()
    lake = Lake()
    assert drain(tmp_path, "t", lake) == 2
    assert lake.values() == [1, 2]


def picky(items: list[list[int]]) -> pa.RecordBatch:
    """Refuse 13 as Arrow refuses a lone surrogate, 7 as it refuses another type, -1 as it does without memory."""
    for item in items:
        if 13 in item:
            pa.array(["\ud800"], pa.string())
        if 7 in item:
            pa.array(["x"], pa.int64())
        if -1 in item:
            raise pa.ArrowMemoryError("malloc of size 1 failed")
    return build(items)


@pytest.mark.parametrize("durable", [True, False])
def test_an_item_that_cannot_be_written_is_left_out_alone(
    tmp_path: Path, durable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, "w", SCHEMA, picky, durable=durable)
    for item in ([1], [13, 2, 3], [4], [7], [5]):
        spool.add(item, len(item))
    until(lambda: spool.waiting == 0, 60.0)
    spool.add([6], 1)
    spool.add([13], 1)  # alone in its round, or not
    until(lambda: spool.waiting == 0, 60.0)
    assert spool.alive
    assert (spool.written, spool.dropped) == (4, 5)
    spool.close()
    assert spool.alive, "closed on purpose"
    lake = Lake()
    drain(tmp_path, "t", lake)
    assert lake.values() == [1, 4, 5, 6]
    assert "leaves out 3 rows: UnicodeEncodeError" in caplog.text
    assert "leaves out 1 rows: ArrowInvalid" in caplog.text


def test_who_waits_is_told_that_its_rows_cannot_be_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w", SCHEMA, picky, durable=True)
    with pytest.raises(PlatformError, match="cannot be written: UnicodeEncodeError"):
        spool.add_and_sync([13], 1)
    spool.add_and_sync([1], 1)
    spool.close()


def test_rows_that_found_no_memory_are_written_later(tmp_path: Path) -> None:
    short = [True]

    def built(items: list[list[int]]) -> pa.RecordBatch:
        return picky([*items, [-1]] if short else items)

    spool = Spool(tmp_path, "w", SCHEMA, built, durable=True)
    spool.add([1], 1)
    spool.add([2], 1)
    until(lambda: spool.error is not None, 60.0)
    assert (spool.written, spool.dropped) == (0, 0)
    short.clear()
    until(lambda: spool.written == 2, 60.0)
    spool.close()
    lake = Lake()
    drain(tmp_path, "t", lake)
    assert lake.values() == [1, 2]


def test_a_dead_thread_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, "w", SCHEMA, build, durable=True)
    assert spool.problem() is None
    monkeypatch.setattr(spool, "_thread", threading.Thread())
    assert (spool.alive, spool.problem()) == (False, "its thread ended")
    monkeypatch.undo()
    spool.close()
