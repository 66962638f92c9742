from __future__ import annotations

import fcntl
import threading
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from headway.core.errors import DefinitionError, Unavailable
from headway.serving import drain as module
from headway.serving.drain import drain, read_prefix
from headway.serving.spool import Spool
from tests.serving.test_spool import SCHEMA, Lake, build, until


def test_a_drain_that_died_before_removing_commits_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", "w", SCHEMA, build, durable=True)
    spool.add([1], 1)
    spool.close()
    [path] = (tmp_path / "s").glob("*.arrows")
    kept = path.read_bytes()
    lake = Lake()
    drain(tmp_path / "s", "t", lake)
    path.write_bytes(kept)
    drain(tmp_path / "s", "t", lake)
    assert lake.calls == 2
    assert lake.values() == [1]


def test_a_torn_tail_keeps_the_complete_batches(tmp_path: Path) -> None:
    path = tmp_path / "x.open"
    with path.open("wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
        for n in range(3):
            stream.write_batch(build([[n]]))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = read_prefix(path)
        kept = [] if found is None else found["n"].to_pylist()
        assert kept == list(range(len(kept)))
    path.write_bytes(whole[:-30])
    found = read_prefix(path)
    assert found is not None
    assert len(found) >= 2


def test_a_drain_between_opening_and_locking_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, lock, drained = Lake(), fcntl.flock, threading.Event()

    def flock(file: object, how: int) -> None:
        if how == fcntl.LOCK_EX and not drained.is_set():
            drained.set()
            drain(tmp_path / "s", "t", lake)
        lock(file, how)  # type: ignore[arg-type]  # a file

    monkeypatch.setattr(fcntl, "flock", flock)
    spool = Spool(tmp_path / "s", "w", SCHEMA, build, durable=True)
    spool.add([1], 1)
    until(lambda: spool.written == 1)
    assert drained.is_set()
    spool.add([2], 1)
    spool.close()
    assert spool.error is None
    assert drain(tmp_path / "s", "t", lake) == 2
    assert lake.values() == [1, 2]


def test_what_a_writer_left_before_its_first_row_is_removed(tmp_path: Path) -> None:
    dead, living = tmp_path / ".r-000001.new", tmp_path / ".s-000001.new"
    dead.write_bytes(b"")
    with living.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert drain(tmp_path, "t", Lake()) == 0
        assert [path.name for path in tmp_path.iterdir()] == [living.name]


def spooled(path: Path, column: str, values: list[int]) -> Path:
    rows = pa.table({column: pa.array(values, pa.int64())})
    with pa.ipc.new_stream(path, rows.schema) as stream:
        stream.write_table(rows)
    return path


def test_a_backlog_is_drained_in_bounded_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLICE_FILES", 2)

    class Failing(Lake):
        def append_many(self, table: str, batches: Sequence[tuple[pa.Table, str]]) -> str:
            if self.calls == 2:
                raise Unavailable("the lake is away", retry_after_s=1)
            return super().append_many(table, batches)

    paths = [spooled(tmp_path / f"w-{number}.arrows", "n", [number]) for number in range(5)]
    lake = Failing()
    with pytest.raises(Unavailable):
        drain(tmp_path, "t", lake)
    assert lake.values() == [0, 1, 2, 3]
    assert [path for path in paths if path.exists()] == paths[4:], "what is committed is gone"
    monkeypatch.setattr(module, "_SLICE_FILES", 64)
    monkeypatch.setattr(module, "_SLICE_BYTES", 16)
    paths += [spooled(tmp_path / f"w-{number}.arrows", "n", [number] * 2) for number in (5, 6)]
    rest = Lake()
    assert drain(tmp_path, "t", rest) == 5
    assert rest.calls == 3


def test_schemas_are_committed_apart_and_one_that_does_not_fit_stays(tmp_path: Path) -> None:
    class Strict(Lake):
        def append_many(self, table: str, batches: Sequence[tuple[pa.Table, str]]) -> str:
            assert len({tuple(data.column_names) for data, _ in batches}) == 1
            if "bad" in batches[0][0].column_names:
                raise DefinitionError("another type", field="t.bad", expected="int64")
            return super().append_many(table, batches)

    spooled(tmp_path / "a-1.arrows", "n", [1])
    stays = spooled(tmp_path / "a-2.arrows", "bad", [0])
    spooled(tmp_path / "a-3.arrows", "n", [2])
    spooled(tmp_path / "a-4.arrows", "n", [3])
    lake = Strict()
    with pytest.raises(DefinitionError, match="another type"):
        drain(tmp_path, "t", lake)
    assert lake.values() == [1, 2, 3]
    assert list(tmp_path.iterdir()) == [stays]
