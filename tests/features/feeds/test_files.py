from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import Conflict, InvalidValue
from headway.features.feeds import chunk, files
from headway.features.feeds.columns import Columns
from headway.features.feeds.files import CsvFeed, ParquetFeed, feeds_of
from headway.features.streams.decoding import Decoder
from headway.features.streams.port import Message
from tests.features.feeds.world import COLUMNS, NOW, SALES, Stopped, World, row

HEADER = "sale,shop,amount,big,vip,due,event_time"


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER.split(","))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int = 1_000) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def decoded(world: World) -> pa.Table:
    messages = [Message(offset=i, key=k, value=v, published=NOW) for i, (k, v) in enumerate(world.messages)]
    found = Decoder(SALES, []).decode(messages, NOW)
    assert found.dead == []
    return found.rows


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_file_becomes_the_events_that_it_holds(tmp_path: Path, write: Any) -> None:
    rows = [row(i) for i in range(50)]
    suffix = "csv" if write is write_csv else "parquet"
    world = World()
    report = world.run(*feeds_of([write(tmp_path / f"a.{suffix}", rows)], COLUMNS))
    assert (report.read, report.published, report.refused) == (50, 50, 0)
    table = decoded(world)
    assert table.select(list(rows[0])).to_pylist() == rows
    assert {key for key, _ in world.messages} == {b"s0", b"s1", b"s2"}
    again = world.run(*feeds_of([tmp_path], COLUMNS))
    assert (again.read, again.before, len(world.messages)) == (0, 50, 50)
    assert world.run(*feeds_of([tmp_path], COLUMNS), restart=True).published == 50


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 40),
    st.sampled_from(["csv", "parquet"]),
    st.integers(1, 9),
    st.integers(1, 12),
    st.lists(st.integers(2, 40), max_size=4),
    st.sets(st.integers(0, 39), max_size=5),
)
def test_a_feed_that_dies_anywhere_loses_nothing_and_repeats_a_chunk_at_most(
    count: int, kind: str, size: int, group: int, deaths: list[int], bad: set[int]
) -> None:
    rows: list[dict[str, Any]] = [row(i) | ({"sale": None} if i in bad else {}) for i in range(count)]
    good = {i for i in range(count) if i not in bad}
    world = World()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(chunk, "CHUNK_ROWS", size)
        patch.setattr(files, "CHUNK_ROWS", size)
        path = Path(folder) / f"a.{kind}"
        if kind == "csv":
            write_csv(path, rows)
        else:
            table = pa.Table.from_pylist([row(0), *rows]).slice(1)  # the first row tells the types
            pq.write_table(table, path, row_group_size=group)
        for death in deaths:
            world.effects, world.stop_at = 0, death
            try:
                world.run(*feeds_of([path], COLUMNS))
            except Stopped:
                continue
            break
        world.stop_at = -1
        last = world.run(*feeds_of([path], COLUMNS))
        assert last.before + last.read == count
        assert set(world.ids) == good
        assert sum(world.ids.values()) <= len(good) + size * len(deaths)
        assert {number for number, _ in world.dead} == {i + 1 for i in range(count) if i in bad}
        assert world.dead.total() == count - len(good)  # each once, however often it was met
        assert world.run(*feeds_of([path], COLUMNS)).read == 0


def test_what_is_wrong_in_a_csv_names_file_row_and_column(tmp_path: Path) -> None:
    lines = [
        HEADER,
        "1,a,1,1,true,2020-01-01T00:00:00Z,5",
        "x,a,1,1,1,,5",
        "3,a,1,1,1,,5,more",
        "4,a,1e999,1,1,,5",
        "5,a,1_0,1,1,,5",
        "",
        "6,a,1,1,maybe,,5",
        '7,"a,1,1,1,,5',
    ]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    world = World()
    report = world.run(CsvFeed(path, COLUMNS))
    assert (report.read, report.published, report.refused) == (7, 1, 6)
    expected = [
        ("a.csv row 2:", "`$.sale`"),
        ("a.csv row 3:", "8 values where the header has 7"),
        ("a.csv row 4:", "`$.amount`"),
        ("a.csv row 5:", "`$.amount`"),
        ("a.csv row 6:", "`$.vip`"),
        ("a.csv row 7:", "unexpected end of data"),
    ]
    for reason, (place, why) in zip(report.reasons, expected, strict=True):
        assert reason.startswith(place)
        assert why in reason


def test_text_stays_text_and_an_empty_field_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + HEADER.encode()
        + b"\r\n"
        + b'1,007,,NaN,,,2020-01-01 00:00:00\r\n2,"a ""b"", \xc3\xa9\n",.5,1e3,0,7,9\r\n'
    )
    world = World()
    assert world.run(CsvFeed(path, COLUMNS)).refused == 0
    first, second = decoded(world).to_pylist()
    assert (first["shop"], first["amount"], first["big"], first["vip"]) == ("007", None, None, None)
    assert first["event_time"] == 1_577_836_800_000_000
    assert (second["shop"], second["amount"], second["big"], second["vip"]) == ('a "b", é\n', 0.5, 1000.0, False)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER.encode() + b"\n1,\xff,1,1,1,,5\n2,b,1,1,1,,5\n")
    world = World()
    report = world.run(CsvFeed(path, COLUMNS))
    assert (report.published, report.reasons) == (1, ["a.csv row 1: not UTF-8"])


@pytest.mark.parametrize(
    ("name", "content", "field", "says"),
    [
        ("a.csv", b"", "", "empty"),
        ("a.csv", b"sale,shop\n1,a\n", "amount", "no such column"),
        ("a.csv", HEADER.replace("due", "Event_time").encode(), "due", "no such column"),
        ("a.csv", (HEADER + ",sale").encode(), "sale", "2 columns are named so"),
        ("a.parquet", b"PAR1", "", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes, field: str, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidValue) as caught:
        World().run(*feeds_of([path], COLUMNS))
    assert str(path) in str(caught.value)
    assert field in str(caught.value)
    assert says in str(caught.value)


def test_columns_are_renamed_and_others_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,shop,amount,big,vip,due,at,noise\n1,a,1,1,1,,5,x\n")
    columns = Columns(source=SALES, renamed={"id": "sale", "at": "event_time"}, known_at_event=True)
    world = World()
    report = world.run(CsvFeed(path, columns))
    assert report.ignored == ["noise"]
    value = json.loads(world.messages[0][1])
    assert (value["sale"], value["event_time"], value["known_time"]) == (1, 5, 5)
    assert "noise" not in value
    with pytest.raises(InvalidValue, match="no such column to rename"):
        World().run(CsvFeed(path, Columns(source=SALES, renamed={**columns.renamed, "ghost": "x"})))


def test_types_of_parquet_that_stand_for_ours(tmp_path: Path) -> None:
    table = pa.table(
        {
            "sale": pa.array([1.0, None, 3.5]),  # what pandas makes of numbers with a gap
            "shop": pa.array(["a", "b", "c"]).dictionary_encode(),
            "amount": pa.array([Decimal("1.25")] * 3),
            "big": pa.array([1.0, float("nan"), 2.0]),
            "vip": pa.array([1, 0, 2], pa.int8()),
            "due": pa.array([date(1970, 1, 2)] * 3),
            "event_time": pa.array([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)] * 3, pa.timestamp("ns", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    world = World()
    report = world.run(ParquetFeed(tmp_path / "a.parquet", COLUMNS))
    (event,) = decoded(world).to_pylist()
    assert (event["sale"], event["amount"], event["vip"], event["due"]) == (1, 1.25, True, 86_400_000_000)
    assert event["event_time"] == 1_000_000
    assert ["row 2" in report.reasons[0], "row 3" in report.reasons[1]] == [True, True]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("shop", pa.array([b"x"])),
        ("shop", pa.array([datetime(2020, 1, 1)])),
        ("shop", pa.array([1])),
        ("amount", pa.array(["1"])),
        ("amount", pa.array([float("inf")])),
        ("sale", pa.array([[1]])),
    ],
)
def test_types_of_parquet_that_do_not_are_refused(tmp_path: Path, name: str, values: pa.Array) -> None:
    table = pa.Table.from_pylist([row(1)])
    table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, tmp_path / "a.parquet")
    report = World().run(ParquetFeed(tmp_path / "a.parquet", COLUMNS))
    assert (report.published, report.refused) == (0, 1)
    assert name in report.reasons[0]


def test_a_folder_is_read_in_order_and_new_files_are_found(tmp_path: Path) -> None:
    write_csv(tmp_path / "b.csv", [row(2)])
    (tmp_path / "day").mkdir()
    write_parquet(tmp_path / "day" / "a.parquet", [row(1)])
    (tmp_path / "_temporary").mkdir()
    write_csv(tmp_path / "_temporary" / "x.csv", [row(9)])
    (tmp_path / ".hidden.csv").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    world = World()
    assert world.run(*feeds_of([tmp_path], COLUMNS)).published == 2
    write_csv(tmp_path / "a.csv", [row(3)])
    assert world.run(*feeds_of([tmp_path], COLUMNS)).published == 1
    assert world.ids == Counter([1, 2, 3])
    for wrong in (tmp_path / "notes.txt", tmp_path / "ghost.csv"):
        with pytest.raises(InvalidValue):
            feeds_of([wrong], COLUMNS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidValue):
        feeds_of([tmp_path / "empty"], COLUMNS)


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path, world = write_csv(tmp_path / "a.csv", [row(1)]), World()
    world.run(CsvFeed(path, COLUMNS))
    write_csv(path, [row(1), row(2)])
    report = world.run(CsvFeed(path, COLUMNS))
    assert report.published == 2
    assert set(world.ids) == {1, 2}


def test_two_that_feed_the_same_stop_one(tmp_path: Path) -> None:
    path, world = write_csv(tmp_path / "a.csv", [row(i) for i in range(3)]), World()
    first, second = CsvFeed(path, COLUMNS), CsvFeed(path, COLUMNS)
    inner = first.chunks

    def meanwhile(position: bytes | None) -> Any:
        for item in inner(position):
            world.run(second)
            yield item

    first.chunks = meanwhile  # type: ignore[method-assign]  # another process comes in between
    with pytest.raises(Conflict, match="another process"):
        world.run(first)


def test_memory_is_bounded_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "CHUNK_BYTES", 1_000)
    path = write_csv(tmp_path / "a.csv", [row(i) | {"shop": "x" * 400} for i in range(10)])
    sizes = [len(item.values) for item in CsvFeed(path, COLUMNS).chunks(None)]
    assert sizes == [2] * 5
