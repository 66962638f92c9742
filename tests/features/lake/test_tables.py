from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import CorruptState, DefinitionError, Forbidden, InvalidValue, NotFound, Unauthenticated
from headway.core.types import Principal
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location, TableSpec, bucket_of, open_catalog, write_spool
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE, Event
from tests.features.samples import batch
from tests.features.samples import table as rows_of


def reader_of(lake: Location, clock: ManualClock) -> tuple[LakeReader, MemoryAudit]:
    audit = MemoryAudit(clock)
    return LakeReader(lake, audit, clock), audit


def test_what_is_appended_is_read_back(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    snapshot = Committer(lake, clock).append(SOURCE, batch(0, 100), "one")
    reader, audit = reader_of(lake, clock)
    assert reader.snapshot(SOURCE) == snapshot
    rows = reader.scan(SOURCE, analyst, "testing").sort_by("payment")
    assert rows.drop_columns(["ingested_at"]).to_pylist() == batch(0, 100).to_pylist()
    assert set(rows["ingested_at"].to_pylist()) == {clock.now()}
    assert [(e.action, e.outcome) for e in audit.events] == [("data.read", "done")]


def test_a_repeated_batch_changes_nothing_even_after_a_restart(
    lake: Location, clock: ManualClock, analyst: Principal, tmp_path: Path
) -> None:
    spool = write_spool(tmp_path / "spool", "one", batch(0, 10))
    first = Committer(lake, clock).append(SOURCE, spool, "one")
    again = Committer(lake, clock)
    both = again.append_many(SOURCE, [(spool, "one"), (batch(10, 5), "two")])
    assert again.append(SOURCE, spool, "one") == first
    assert again.append(SOURCE, batch(10, 5), "two") == both != first
    reader, _ = reader_of(lake, clock)
    assert reader.scan(SOURCE, analyst, "testing").num_rows == 15
    assert reader.scan(SOURCE, analyst, "testing", snapshot_id=first).num_rows == 10


def test_filters_columns_and_buckets(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    Committer(lake, clock).append(SOURCE, batch(0, 100), "one")
    reader, _ = reader_of(lake, clock)
    ranged = reader.scan(SOURCE, analyst, "testing", columns=["payment"], event_time=(100, 300), known_by=250)
    assert ranged.column_names == ["payment"]
    assert sorted(ranged["payment"].to_pylist()) == list(range(10, 25))
    parts = [reader.scan(SOURCE, analyst, "testing", bucket=number) for number in range(SOURCE.buckets)]
    assert sum(part.num_rows for part in parts) == 100
    for number, part in enumerate(parts):
        assert (bucket_of(part["card"].combine_chunks(), SOURCE.buckets) == number).all()


def test_who_may_not_read_is_refused_and_recorded(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    Committer(lake, clock).append(SOURCE, batch(0, 1), "one")
    reader, audit = reader_of(lake, clock)
    bare = Principal(sub="b", kind="human", scopes=frozenset(), purpose="testing", expires=2**60)
    curious = Principal(sub="c", kind="human", scopes=analyst.scopes, purpose="curiosity", expires=2**60)
    late = Principal(sub="d", kind="human", scopes=analyst.scopes, purpose="testing", expires=5)
    for principal, purpose, error in (
        (bare, "testing", Forbidden),
        (curious, "curiosity", Forbidden),
        (curious, "testing", Forbidden),
        (late, "testing", Unauthenticated),
    ):
        for table in (SOURCE, SOURCE.table):
            with pytest.raises(error):
                reader.scan(table, principal, purpose)
    assert [e.outcome for e in audit.events] == ["denied"] * 8


def test_wrong_names_and_values_say_what_there_is(
    lake: Location, clock: ManualClock, analyst: Principal, tmp_path: Path
) -> None:
    committer = Committer(lake, clock)
    committer.append(SOURCE, batch(0, 1), "one")
    reader, _ = reader_of(lake, clock)
    with pytest.raises(NotFound, match=r"events\.payments"):
        reader.scan("events.nothing", analyst, "testing")
    with pytest.raises(NotFound, match="amount"):
        reader.scan(SOURCE, analyst, "testing", columns=["amont"])
    with pytest.raises(NotFound, match="snapshot"):
        reader.scan(SOURCE, analyst, "testing", snapshot_id=42)
    with pytest.raises(DefinitionError, match="amount"):
        committer.append(SOURCE, batch(0, 1).drop_columns(["amount"]), "two")
    with pytest.raises(InvalidValue, match="batch_id"):
        committer.append(SOURCE, batch(0, 1), "a,b")
    with pytest.raises(DefinitionError, match="definition does not"):
        Committer(lake, clock).ensure(TableSpec(name=SOURCE.table, columns={"x": "int64"}))
    with pytest.raises(DefinitionError, match="dtype"):
        TableSpec(name="a.b", columns={"x": "decimal"})
    (tmp_path / "torn.arrow").write_bytes(b"ARROW1")
    with pytest.raises(CorruptState, match=r"torn\.arrow"):
        committer.append(SOURCE, tmp_path / "torn.arrow", "three")


def test_a_plain_table_without_rows(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    spec = TableSpec(name="decisions.test", columns={"id": "string", "at": "timestamp"}, purposes=("testing",))
    Committer(lake, clock).ensure(spec)
    reader, _ = reader_of(lake, clock)
    assert reader.snapshot(spec) == 0
    assert reader.scan("decisions.test", analyst, "testing").num_rows == 0
    Committer(lake, clock).append(spec, pa.table({"id": ["a"], "at": [5], "event_time": [3]}), "one")
    row = reader.scan("decisions.test", analyst, "testing").to_pylist()[0]
    assert (row["id"], row["at"], row["event_time"], row["known_time"]) == ("a", 5, 3, 3)


def test_rows_without_a_bucket_key_are_read_too(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    rows = rows_of([Event(1, 5, 6, 1, 100), Event(2, 5, 6, 2, 100)])
    unowned = rows.set_column(rows.column_names.index("card"), "card", pa.array([None, 2], pa.int64()))
    Committer(lake, clock).append(SOURCE, unowned, "a")
    reader, _ = reader_of(lake, clock)
    assert sorted(reader.scan(SOURCE, analyst, "testing")["payment"].to_pylist()) == [1, 2]


def log(columns: dict[str, str], *, evolves: bool = True) -> TableSpec:
    return TableSpec(name="decisions.log", columns=columns, purposes=("testing",), evolves=evolves)


def test_a_log_gets_new_columns_and_keeps_old_ones(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    committer = Committer(lake, clock)
    before, after = {"id": "string", "a": "float32"}, {"id": "string", "b": "int64"}
    rows = {name: pa.table({"id": [name], "event_time": [number]}) for number, name in enumerate("vwxyz")}
    a, b = pa.array([0.5], pa.float32()), pa.array([7])
    committer.append(log(before), rows["v"].append_column("a", a), "1")
    committer.append(log(after), rows["w"].append_column("b", b), "2")
    committer.append(log(before), rows["x"].append_column("a", a), "3")
    again = Committer(lake, clock)
    both = {**before, **after}
    again.append_many(log(both), [(rows["y"].append_column("b", b), "4"), (rows["z"].append_column("a", a), "5")])
    assert again.append(log(after), rows["w"].append_column("b", b), "2") != 0
    reader, _ = reader_of(lake, clock)
    found = reader.scan("decisions.log", analyst, "testing").sort_by("id").select(["id", "a", "b"])
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("v", 0.5, None), ("w", None, 7), ("x", 0.5, None), ("y", None, 7), ("z", 0.5, None),
    ]  # fmt: skip


def test_a_column_of_a_log_keeps_its_type_and_other_tables_their_columns(lake: Location, clock: ManualClock) -> None:
    committer = Committer(lake, clock)
    committer.ensure(log({"id": "string", "a": "float32"}))
    for who in (committer, Committer(lake, clock)):
        with pytest.raises(DefinitionError, match="float") as caught:
            who.ensure(log({"id": "string", "a": "int64", "c": "int64"}))
        assert caught.value.field == "decisions.log.a"
        with pytest.raises(DefinitionError, match="never dropped") as caught:
            who.ensure(log({"id": "string", "b": "int64"}, evolves=False))
        assert caught.value.field == "decisions.log.a"
    with pytest.raises(DefinitionError, match="without this column"):
        committer.append(log({"id": "string", "a": "float32"}), pa.table({"id": ["v"]}), "1")
    assert "c" not in open_catalog(lake).load_table("decisions.log").schema().column_names
