from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from headway.core.clock import ManualClock
from headway.core.errors import InvalidValue, NotFound, Unavailable
from headway.core.times import DAY, HOUR
from headway.core.types import Principal
from headway.features.backlog import Backlog
from headway.features.evolution import version_name
from headway.features.lake import committer as committer_module
from headway.features.lake import layout, memory
from headway.features.lake.committer import Committer
from headway.features.lake.compaction import Compacted, Merge, write_merged
from headway.features.lake.expiry import Expired, plan_expiry
from headway.features.lake.files import Write, described, live_files
from headway.features.lake.layout import LakeFile, groups
from headway.features.lake.manifests import live
from headway.features.lake.reader import LakeReader
from headway.features.lake.retention import Retention
from headway.features.lake.tables import Location, TableSpec, open_catalog
from headway.features.lake.upkeep import APPENDS_PER_COMPACTION, APPENDS_PER_LEVELLING, Upkeep
from headway.features.materialize import materialize
from headway.features.online_store import OnlineStore
from headway.governance.audit_event import MemoryAudit
from tests.features.lake.test_tables import log, reader_of
from tests.features.oracle import SOURCE, a_view
from tests.features.samples import batch
from tests.features.samples import table as rows_of
from tests.features.test_materialize import events

LAST_ONLY = Retention(newest=1, hourly=0, daily=0, grace=HOUR)
TABLE = SOURCE.table


def filled(lake: Location, clock: ManualClock, commits: int, rows: int = 20) -> tuple[Committer, list[int]]:
    committer = Committer(lake, clock)
    return committer, [committer.append(SOURCE, batch(i * rows, rows), str(i)) for i in range(commits)]


def compact(committer: Committer, *, whole: bool = False, name: str = TABLE) -> Compacted:
    done = committer.compact_step(name, whole=whole)
    while done.left:
        done += committer.compact_step(name, whole=whole)
    return done


def expire(committer: Committer, keep: list[int] | None = None, retention: Retention = LAST_ONLY) -> Expired:
    done = committer.expire_step(TABLE, keep or [], retention)
    while done.left:
        done += committer.expire_step(TABLE, keep or [], retention)
    return done


def payments(reader: LakeReader, analyst: Principal, snapshot: int | None = None) -> list[int]:
    return sorted(reader.scan(SOURCE, analyst, "testing", snapshot_id=snapshot)["payment"].to_pylist())


def on_disk(lake: Location) -> set[Path]:
    return {path for path in Path(lake.warehouse.removeprefix("file://")).rglob("*") if path.is_file()}


def test_compaction_keeps_every_row_in_fewer_sorted_files(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    committer, snapshots = filled(lake, clock, 10)
    reader, _ = reader_of(lake, clock)
    before = reader.plan(SOURCE, analyst, "testing")
    done = compact(committer)
    after = reader.plan(SOURCE, analyst, "testing")
    assert (done.merged, done.rows, done.left) == (len(before.files), 200, 0)
    assert len(after.files) == len({bucket for _, bucket in after.files}) == done.written
    assert payments(reader, analyst) == list(range(200))
    assert payments(reader, analyst, snapshots[4]) == list(range(100)), "older snapshots still have their files"
    for number in range(SOURCE.buckets):
        part = reader.scan(SOURCE, analyst, "testing", bucket=number)
        order = list(zip(part["card"].to_pylist(), part["event_time"].to_pylist(), strict=True))
        assert order == sorted(order)
    assert compact(committer) == compact(committer, whole=True) == Compacted(), "there is nothing left to do"
    assert committer.append(SOURCE, batch(0, 20), "0") == snapshots[0]
    assert committer.append(SOURCE, batch(200, 1), "new") != snapshots[-1]
    assert payments(reader, analyst) == list(range(201))


def test_groups_of_one_bucket_and_step_have_files_of_their_own(
    lake: Location, clock: ManualClock, analyst: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer, _ = filled(lake, clock, 12)
    monkeypatch.setattr(layout, "TARGET", 4 * 2_000)
    assert committer.compact_step(TABLE, whole=True).written > SOURCE.buckets
    assert payments(reader_of(lake, clock)[0], analyst) == list(range(240))


def test_a_few_files_are_merged_only_when_all_are(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    committer, _ = filled(lake, clock, 3)
    assert compact(committer) == Compacted()
    assert compact(committer, whole=True).rows == 60
    assert payments(reader_of(lake, clock)[0], analyst) == list(range(60))


def test_rows_older_than_a_column_and_without_a_key_are_compacted_too(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    import pyarrow as pa

    committer = Committer(lake, clock)
    spec = TableSpec(
        name="decisions.log", columns={"id": "string"}, bucket_by="id", buckets=2, purposes=("testing",), evolves=True
    )
    wider = TableSpec(
        name="decisions.log", columns={"id": "string", "b": "int64"}, bucket_by="id", buckets=2,
        purposes=("testing",), evolves=True,
    )  # fmt: skip
    ids = pa.array(["x", None], pa.string())
    committer.append(spec, pa.table({"id": ids, "event_time": [1, 2]}), "1")
    committer.append(wider, pa.table({"id": ids, "b": [7, 8], "event_time": [3, 4]}), "2")
    assert compact(committer, whole=True, name="decisions.log").rows == 4
    found = reader_of(lake, clock)[0].scan("decisions.log", analyst, "testing").sort_by("event_time")
    assert found.select(["id", "b"]).to_pylist() == [
        {"id": "x", "b": None}, {"id": None, "b": None}, {"id": "x", "b": 7}, {"id": None, "b": 8},
    ]  # fmt: skip


def test_expiry_forgets_neither_batches_nor_pinned_snapshots(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    committer, snapshots = filled(lake, clock, 12)
    committer.hold("version:fraud/3", {TABLE: snapshots[2], "events.none": 0})
    compact(committer)
    assert expire(committer, keep=[snapshots[5]]).snapshots == 10
    for writer in (committer, Committer(lake, clock)):
        for number, snapshot in enumerate(snapshots):
            assert writer.append(SOURCE, batch(0, 1), str(number)) == snapshot
    reader, _ = reader_of(lake, clock)
    assert payments(reader, analyst) == list(range(240))
    assert payments(reader, analyst, snapshots[2]) == list(range(60))
    assert payments(reader, analyst, snapshots[5]) == list(range(120))
    with pytest.raises(NotFound, match="snapshot"):
        payments(reader, analyst, snapshots[3])
    with pytest.raises(NotFound, match="snapshot"):
        committer.hold("run:x", {TABLE: snapshots[3]})
    committer.release("version:fraud/3", [TABLE])
    committer.release("version:fraud/3", [TABLE])
    assert expire(committer).snapshots == 2
    with pytest.raises(NotFound, match="snapshot"):
        payments(reader, analyst, snapshots[2])


def test_files_go_when_their_grace_is_over_and_none_is_left_behind(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    committer, _ = filled(lake, clock, 12)
    reader, _ = reader_of(lake, clock)
    plan = reader.plan(SOURCE, analyst, "testing")
    compact(committer)
    released = expire(committer).released
    assert released > len(plan.files)
    assert all(Path(path.removeprefix("file://")).exists() for path in plan.paths), "a read has begun with them"
    assert expire(committer) == Expired()
    clock.advance(HOUR)
    assert expire(committer).removed == released
    assert not any(Path(path.removeprefix("file://")).exists() for path in plan.paths)
    assert payments(reader, analyst) == list(range(240))
    clock.advance(HOUR)
    expire(committer)
    assert committer.remove_orphans(TABLE, older_than=-(2**60)) == 0, "each file is in use or waits for its grace"


def test_orphans_are_found_and_what_is_used_or_young_stays(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    committer, snapshots = filled(lake, clock, 12)
    committer.hold("run:a", {TABLE: snapshots[0]})
    compact(committer)
    expire(committer)
    used = on_disk(lake)
    folder = Path(open_catalog(lake).load_table(TABLE).location().removeprefix("file://"))
    for name in ("data/bucket=1/00000-0-left.parquet", "metadata/left-m0.avro"):
        (folder / name).write_bytes(b"half")
    assert committer.remove_orphans(TABLE, older_than=DAY) == 0, "the clock of this test is far behind the files"
    assert committer.remove_orphans(TABLE, older_than=-(2**60)) == 2
    assert on_disk(lake) == used
    reader, _ = reader_of(lake, clock)
    assert payments(reader, analyst, snapshots[0]) == list(range(20))
    assert payments(reader, analyst) == list(range(240))


def test_the_memory_of_batches_is_bounded(lake: Location, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "REMEMBERED", 5)
    committer, snapshots = filled(lake, clock, 10)
    expire(committer)
    known = memory.committed(open_catalog(lake).load_table(TABLE))
    assert known == {str(number): snapshots[number] for number in range(4, 10)}


def test_compaction_and_expiry_add_nothing_to_what_is_materialised(
    lake: Location, clock: ManualClock, analyst: Principal, online_url: str
) -> None:
    writer, view, store = Committer(lake, clock), a_view(), OnlineStore(online_url)
    reader = LakeReader(lake, MemoryAudit(clock), clock)

    def added() -> int:
        return materialize([view], reader, store, analyst, "testing")[version_name(view)].events

    for number in range(9):
        writer.append(SOURCE, rows_of(events(number * 10, 10)), str(number))
    assert added() == 90
    compact(writer, whole=True)
    assert added() == 0
    writer.append(SOURCE, rows_of(events(90, 10)), "9")
    compact(writer, whole=True)
    writer.append(SOURCE, rows_of(events(100, 10)), "10")
    expire(writer)
    assert added() == 20, "ten rows share files with old ones, and the snapshot of the last run has expired"
    assert added() == 0
    store.clear(view)
    assert added() == 110


def test_the_backlog_sees_no_rows_missing_after_compaction(
    lake: Location, clock: ManualClock, analyst: Principal, online_url: str
) -> None:
    committer, _ = filled(lake, clock, 3)
    reader, _ = reader_of(lake, clock)
    view, store = a_view(), OnlineStore(online_url)
    backlog = Backlog(online=store, reader=reader, control=None, clock=clock, principal=lambda: analyst)  # type: ignore[arg-type]  # nothing is owed here
    materialize([view], reader, store, analyst, "testing")
    compact(committer, whole=True)
    compacted = reader.snapshot(SOURCE)
    assert backlog.lacks(view, compacted) is False
    expire(committer)
    assert backlog.lacks(view, compacted) is False
    after = committer.append(SOURCE, batch(60, 1), "more")
    assert backlog.lacks(view, reader.parent(SOURCE, after)) is False
    assert backlog.lacks(view, after) is True


def test_time_travel_finds_the_snapshot_of_a_moment_or_says_that_it_expired(lake: Location, clock: ManualClock) -> None:
    committer, snapshots = filled(lake, clock, 4)
    reader, _ = reader_of(lake, clock)
    listed = open_catalog(lake).load_table(TABLE).metadata.snapshots
    moments = [snapshot.timestamp_ms * 1_000 for snapshot in listed]
    assert [reader.at(SOURCE, moment) for moment in moments] == snapshots
    assert reader.at(SOURCE, moments[-1] + DAY) == snapshots[-1]
    with pytest.raises(NotFound, match="snapshot of"):
        reader.at(SOURCE, moments[0] - 1)
    committer.hold("run:a", {TABLE: snapshots[0]})
    expire(committer)
    with pytest.raises(NotFound, match="snapshot of"):
        reader.at(SOURCE, moments[2])
    assert reader.at(SOURCE, moments[3]) == snapshots[3]
    with pytest.raises(NotFound, match="snapshot of"):
        reader.at(SOURCE, moments[0]), "the next one is gone, so nobody knows how long this one was current"


def test_an_upsert_replaces_rows_by_key_once(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    committer, snapshots = filled(lake, clock, 3)
    reader, _ = reader_of(lake, clock)
    changed = batch(50, 20)
    changed = changed.set_column(changed.column_names.index("amount"), "amount", changed["amount"].cast("float64"))
    new = committer.upsert(SOURCE, changed, "u", ["payment"])
    assert committer.upsert(SOURCE, batch(0, 60), "u", ["payment"]) == new
    assert Committer(lake, clock).upsert(SOURCE, batch(0, 60), "u", ["payment"]) == new
    rows = reader.scan(SOURCE, analyst, "testing")
    assert sorted(rows["payment"].to_pylist()) == list(range(70))
    stamps = dict(zip(rows["payment"].to_pylist(), rows["ingested_at"].to_pylist(), strict=True))
    assert stamps[49] < stamps[50] == stamps[69], "rows beside the replaced ones keep their ingested_at"
    assert payments(reader, analyst, snapshots[-1]) == list(range(60))
    committer.upsert(SOURCE, batch(60, 20), "v", ["card", "payment"])
    assert payments(reader, analyst) == list(range(80))


def test_an_upsert_refuses_keys_that_do_not_say_one_row(lake: Location, clock: ManualClock) -> None:
    committer = Committer(lake, clock)
    with pytest.raises(InvalidValue, match="repeat a key"):
        committer.upsert(SOURCE, batch(0, 20), "u", ["card"])
    with pytest.raises(InvalidValue, match="nothing"):
        committer.upsert(SOURCE, batch(0, 20), "u", [])
    with pytest.raises(NotFound, match="pay"):
        committer.upsert(SOURCE, batch(0, 20), "u", ["pay"])
    import pyarrow as pa

    committer.ensure(log({"id": "string"}))
    with pytest.raises(InvalidValue, match="null"):
        committer.upsert(
            log({"id": "string"}), pa.table({"id": pa.array([None], pa.string()), "event_time": [1]}), "u", ["id"]
        )
    assert open_catalog(lake).load_table(TABLE).current_snapshot() is None


def test_appends_and_upserts_go_on_while_files_are_merged(
    lake: Location, clock: ManualClock, analyst: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _ = filled(lake, clock, 10)
    reader, _ = reader_of(lake, clock)
    between: list[Callable[[], object]] = [
        lambda: writer.append(SOURCE, batch(200, 20), "beside"),
        lambda: writer.upsert(SOURCE, batch(0, 20), "instead", ["payment"]),
    ]

    def merged(merge: Merge, write: Write) -> list[Any]:
        made = write_merged(merge, write)
        if between:
            thread = Thread(target=between.pop(0))
            thread.start()
            thread.join()
        return made

    monkeypatch.setattr(committer_module, "write_merged", merged)
    assert writer.compact_step(TABLE).merged == 40
    assert payments(reader, analyst) == list(range(220))
    writer.append_many(SOURCE, [(batch(220 + i, 1), f"more{i}") for i in range(20)])
    assert writer.compact_step(TABLE, whole=True) == Compacted(left=1), "a file was taken away that had been merged"
    assert payments(reader, analyst) == list(range(240))
    assert compact(writer, whole=True).left == 0
    assert payments(reader, analyst) == list(range(240))
    writer.append(SOURCE, batch(240, 1), "last")
    assert writer.remove_orphans(TABLE, older_than=-(2**60)) == 0, "what came to nothing was removed by the next write"


def test_a_pin_that_is_set_while_expiry_is_planned_holds(
    lake: Location, clock: ManualClock, analyst: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, snapshots = filled(lake, clock, 6)

    def planned(*given: Any) -> Any:
        found = plan_expiry(*given)
        writer.hold("version:fraud/1", {TABLE: snapshots[1]})
        return found

    monkeypatch.setattr(committer_module, "plan_expiry", planned)
    assert expire(writer).snapshots == 4
    assert payments(reader_of(lake, clock)[0], analyst, snapshots[1]) == list(range(40))


def test_compaction_leaves_one_manifest_to_read_and_no_file_behind(lake: Location, clock: ManualClock) -> None:
    writer, _ = filled(lake, clock, 9)
    compact(writer)
    table = open_catalog(lake).load_table(TABLE)
    current = table.current_snapshot()
    assert current is not None
    assert len([manifest for manifest in current.manifests(table.io) if live(manifest)]) == 1
    assert {file.path for file in map(described, live_files(table, current).values())} == {
        task.file.file_path for task in table.scan().plan_files()
    }
    assert writer.remove_orphans(TABLE, older_than=-(2**60)) == 0


def test_upkeep_follows_the_appends_and_is_told_to_the_audit_log(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    writer, audit = Committer(lake, clock), MemoryAudit(clock)
    upkeep = Upkeep(writer, audit)
    for number in range(APPENDS_PER_LEVELLING):
        writer.append(SOURCE, batch(number * 20, 20), str(number))
        upkeep.appended(TABLE)
    assert upkeep.settle(60)
    reader, _ = reader_of(lake, clock)
    files = reader.plan(SOURCE, analyst, "testing").files
    assert len(files) == len({bucket for _, bucket in files})
    assert payments(reader, analyst) == list(range(20 * APPENDS_PER_LEVELLING))
    acts = {(e.actor, e.kind, e.action, e.resource, e.outcome) for e in audit.events}
    assert acts == {("headway-committer", "workload", f"lake.{act}", TABLE, "done") for act in ("compact", "expire")}
    assert len(audit.events) <= APPENDS_PER_LEVELLING / APPENDS_PER_COMPACTION + APPENDS_PER_LEVELLING / 32 + 1


def test_upkeep_that_fails_is_tried_again_and_stops_no_append(
    lake: Location, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, audit = Committer(lake, clock), MemoryAudit(clock)
    upkeep = Upkeep(writer, audit)

    def full(*given: Any, **named: Any) -> Compacted:
        raise Unavailable("the disk is full", retry_after_s=1.0, hint="free space")

    with monkeypatch.context() as broken:
        broken.setattr(writer, "compact_step", full)
        for number in range(8):
            writer.append(SOURCE, batch(number * 20, 20), str(number))
            upkeep.appended(TABLE)
        assert upkeep.settle(60)
    assert audit.events == []
    for number in range(8, 16):
        writer.append(SOURCE, batch(number * 20, 20), str(number))
        upkeep.appended(TABLE)
    assert upkeep.settle(60)
    assert [event.action for event in audit.events] == ["lake.compact"]


def test_a_bucket_is_levelled_where_its_small_files_count() -> None:
    def file(number: int, weight: int) -> LakeFile:
        return LakeFile(path=str(number), bucket=0, size=weight, rows=1)

    large, part = layout.TARGET // 4, layout.TARGET // 4 // layout.LEVEL
    assert groups([file(0, large), file(1, part - 1)], level=True) == []
    assert groups([file(0, large), file(1, part)]) == []
    assert groups([file(0, large), file(1, part)], level=True) == [[file(1, part), file(0, large)]]
    assert groups([file(0, 4 * large), file(1, part)], level=True) == [], "a full file is left alone"
