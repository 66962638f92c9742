from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import InvalidValue
from headway.core.types import Principal
from headway.features.definitions import Entity, EventSource, FeatureService, RowView
from headway.features.historical import offline_features
from headway.features.join.spine import read_spine
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE, a_view
from tests.features.samples import batch

SERVICE = FeatureService(name="paying_v1", views=(a_view(),), request={"amount": "float32"})
SPINE = {"card": pa.array([1, 2]), "event_time": pa.array([500, 600]), "amount": pa.array([1.0, 2.0])}


def join(spine: pa.Table, lake: Location, clock: ManualClock, analyst: Principal) -> pa.Table:
    Committer(lake, clock).append(SOURCE, batch(0, 100), "a")
    reader = LakeReader(lake, MemoryAudit(clock), clock)
    return offline_features(spine, SERVICE, reader, analyst, "testing")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("card", pa.array(["1", "2"]), "string values where int64 is declared"),
        ("card", pa.array([1.5, 2.0]), "double values where int64 is declared"),
        ("card", pa.array([True, False]), "bool values where int64 is declared"),
        ("card", pa.array([1, 2], pa.timestamp("us")), r"timestamp\[us\] values where int64 is declared"),
        ("amount", pa.array(["a", "b"]), "string values where float32 is declared"),
        ("event_time", pa.array(["2020-01-01T00:00:00", "2020-01-01T00:00:00+02:00"]), "row 0 has no time zone"),
        ("event_time", pa.array(["soon", "later"]), "not a time"),
        ("event_time", pa.array([5, None]), "1 rows have no time"),
        ("event_time", pa.array([2**62, 5], pa.timestamp("s")), "does not fit"),
        ("activity__count_10us", pa.array([1, 2]), "already has a column of this name"),
    ],
)
def test_a_column_that_cannot_be_used_is_named(
    column: str, values: pa.Array, message: str, lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    with pytest.raises(InvalidValue, match=message) as caught:
        join(pa.table({**SPINE, column: values}), lake, clock, analyst)
    assert caught.value.field == column


def test_a_missing_or_repeated_column_is_named(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    with pytest.raises(InvalidValue, match="did you mean 'Card'") as caught:
        join(pa.table({"Card": [1], "event_time": [5], "amount": [1.0]}), lake, clock, analyst)
    assert caught.value.field == "card"
    with pytest.raises(InvalidValue, match="2 columns have this name") as caught:
        join(pa.Table.from_arrays([*SPINE.values(), SPINE["card"]], names=[*SPINE, "card"]), lake, clock, analyst)
    assert caught.value.field == "card"


def test_no_rows_give_no_rows_with_every_column(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    full = join(pa.table(SPINE), lake, clock, analyst)
    for empty in (pa.table(SPINE).slice(0, 0), pa.table({name: pa.array([]) for name in SPINE})):
        found = join(empty, lake, clock, analyst)
        assert (found.num_rows, found.column_names) == (0, full.column_names)


def test_zoned_times_as_text_are_instants(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    written = pa.array(["1970-01-01T00:00:00.000500Z", "1970-01-01T02:00:00.000600+02:00"])
    found = join(pa.table({**SPINE, "event_time": written}), lake, clock, analyst)
    same = join(pa.table(SPINE), lake, clock, analyst)
    assert str(found.drop_columns(["event_time"]).to_pylist()) == str(same.drop_columns(["event_time"]).to_pylist())


SHOP = Entity(name="shop", key="shop", dtype="string")
SALES = EventSource(
    name="sales", columns={"sale": "int64", "shop": "string", "price": "float64"}, id="sale", bucket_by="shop"
)
BY_SHOP = FeatureService(
    name="shops_v1",
    views=(RowView(name="prices", entity=SHOP, source=SALES, columns=("price",)),),
    request={"amount": "float32", "note": "string"},
)


def test_a_csv_file_has_the_declared_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "shop,event_time,amount,note,x\n007,2020-01-01T02:00:00+02:00,1,5,9\n,2020-01-01T00:00:00Z,2.5,,8\n"
    )
    rows = read_spine(path, BY_SHOP)
    assert rows["shop"].to_pylist() == ["007", None]
    assert rows["note"].to_pylist() == ["5", None]
    assert rows["amount"].type == pa.float32()
    assert rows["event_time"].cast(pa.int64()).to_pylist() == [1_577_836_800_000_000] * 2
    path.write_text("shop,event_time,amount,note\n007,1577836800000000,1,\n")
    assert read_spine(path, BY_SHOP)["event_time"].to_pylist() == [1_577_836_800_000_000]
    path.write_text("shop,event_time,amount,note\n")
    assert read_spine(path, BY_SHOP).num_rows == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "shop,shop,event_time\na,b,5\n", "2 columns have this name"),
        ("a.csv", "shop,event_time\na,2020-01-01T00:00:00Z\nb,2020-01-01 00:00:00\n", "row 1 has no time zone"),
        ("a.csv", "shop,event_time,amount\na,5,much\n", "much"),
        ("a.csv", "", "cannot be read"),
        ("a.parquet", "no Parquet", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidValue, match=message):
        read_spine(tmp_path / name, BY_SHOP)


def test_a_parquet_file_with_a_repeated_column(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["card", "card"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(InvalidValue, match="2 columns have this name"):
        read_spine(tmp_path / "a.parquet", SERVICE)
    with pytest.raises(InvalidValue, match="does not exist"):
        read_spine(tmp_path / "b.parquet", SERVICE)
