from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import CorruptState, DefinitionError, InvalidValue, Unavailable
from headway.features.feeds import query
from headway.features.feeds.query import QueryFeed
from headway.features.feeds.watermark import Watermark
from tests.features.feeds.world import COLUMNS, Stopped, World, row

SELECT = "select sale, shop, amount, big, vip, due, event_time, added from sales"


class Shop:
    def __init__(self, path: Path, kind: str = "integer") -> None:
        self.url = f"sqlite:///{path}"
        self._db = sqlite3.connect(path)
        columns = "sale integer, shop text, amount real, big real, vip integer, due integer, event_time integer"
        self._db.execute(f"create table sales ({columns}, added {kind})")

    def add(self, i: int, added: Any, **changed: Any) -> None:
        values = [*(row(i) | changed).values(), added]
        self._db.execute(f"insert into sales values ({', '.join('?' * len(values))})", values)
        self._db.commit()

    def feed(self, **options: Any) -> QueryFeed:
        return QueryFeed(self.url, options.pop("query", SELECT), "added", COLUMNS, **options)

    def close(self) -> None:
        self._db.close()


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    shop = Shop(tmp_path / "shop.db")
    yield shop
    shop.close()


def test_polls_go_on_where_the_last_ended_and_lose_no_equal_watermark(shop: Shop) -> None:
    world, feed = World(), shop.feed()
    shop.add(1, 10)
    shop.add(2, 20)
    assert world.run(feed).published == 2
    assert world.run(feed).published == 0  # the boundary is read again and known
    shop.add(3, 20)  # came later under the same watermark
    shop.add(4, 21)
    assert world.run(feed).published == 2
    shop.add(5, 20)  # late: below the watermark
    assert world.run(feed).published == 0
    assert world.ids == Counter([1, 2, 3, 4])
    assert world.run(shop.feed()).published == 1  # another process repeats the boundary
    assert world.ids == Counter([1, 2, 3, 4, 4])
    feed.close()


def test_late_rows_within_the_lookback_come_once(shop: Shop) -> None:
    world, feed = World(), shop.feed(lookback="5")
    for i, added in enumerate((10, 20, 30)):
        shop.add(i, added)
    world.run(feed)
    shop.add(3, 25)
    shop.add(4, 24)  # beyond
    assert world.run(feed).published == 1
    assert world.run(feed).published == 0
    shop.add(5, 31)
    assert world.run(feed).published == 1
    assert world.ids == Counter([0, 1, 2, 3, 5])


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 6), max_size=8), min_size=1, max_size=4),
    st.integers(1, 4),
    st.lists(st.integers(2, 20), max_size=4),
    st.booleans(),
)
def test_nothing_is_lost_wherever_a_poll_dies_and_whoever_goes_on(
    batches: list[list[int]], size: int, deaths: list[int], same: bool
) -> None:
    """Batches become visible between polls, each row at most the lookback behind the greatest watermark before it."""
    world, number = World(), 0
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(query, "CHUNK_ROWS", size)
        shop = Shop(Path(folder) / "shop.db")
        feed, top = shop.feed(lookback="6"), 0
        for batch in batches:
            base = top
            for step in batch:
                shop.add(number, max(0, base - 6) + step)
                top, number = max(top, max(0, base - 6) + step), number + 1
            world.effects, world.stop_at = 0, deaths.pop() if deaths else -1
            try:
                world.run(feed)
            except Stopped:
                feed = feed if same else shop.feed(lookback="6")
        world.stop_at = -1
        world.run(feed)
        before = world.ids
        assert set(before) == set(range(number))
        world.run(feed)
        assert world.ids == before
        feed.close()
        shop.close()


def test_rows_that_are_no_events_are_refused_once_and_the_rest_goes_on(shop: Shop) -> None:
    world, feed = World(), shop.feed()
    shop.add(1, 10, amount="much")
    shop.add(2, None)
    shop.add(3, 11, shop=b"x")
    shop.add(4, 12)
    report = world.run(feed)
    assert (report.published, report.refused) == (1, 3)
    assert [
        any(says in reason for reason in report.reasons)
        for says in ("`$.amount`", "added: is null, and is the watermark", "shop: bytes is no string")
    ] == [True] * 3
    assert world.run(feed).refused == 0
    shop.add(5, None)
    assert world.run(feed).refused == 1


@pytest.mark.parametrize(
    ("added", "late", "beyond", "lookback"),
    [
        ("2024-01-01T00:10:00Z", "2024-01-01T00:00:00Z", "2023-12-31T23:59:59Z", "10m"),
        ("2024-01-01 00:10:00", "2024-01-01 00:00:00", "2023-12-31 23:59:59", "10m"),
        ("2024-01-03", "2024-01-02", "2024-01-01", "10m"),
    ],
)
def test_times_as_text_look_back_in_their_own_form(
    tmp_path: Path, added: str, late: str, beyond: str, lookback: str
) -> None:
    shop, world = Shop(tmp_path / "s.db", "text"), World()
    feed = shop.feed(lookback=lookback)
    shop.add(1, added)
    world.run(feed)
    shop.add(2, late)
    shop.add(3, beyond)
    assert world.run(feed).published == 1
    assert set(world.ids) == {1, 2}
    shop.close()


def test_colons_and_a_semicolon_in_a_query_stand_for_themselves(shop: Shop) -> None:
    shop.add(1, 10, shop="a :b")
    feed = shop.feed(query=f"{SELECT} where shop = 'a :b' ; ")
    assert World().run(feed).published == 1


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        ({"query": "select * from ghost"}, Unavailable, "no such table: ghost"),
        ({"query": "select ( from"}, Unavailable, "syntax error"),
        ({"query": "select sale, added from sales"}, InvalidValue, "no such column"),
        (
            {"query": "select sale as x, shop, amount, big, vip, due, event_time, added from sales"},
            InvalidValue,
            "sale",
        ),
        ({"query": "select sale, shop, amount, big, vip, due, event_time from sales"}, Exception, "added"),
    ],
)
def test_queries_that_cannot_be_read(shop: Shop, changed: Any, kind: type[Exception], says: str) -> None:
    shop.add(1, 1)
    with pytest.raises(kind, match=says):
        World().run(shop.feed(**changed))


def test_a_lookback_must_fit_the_watermark(shop: Shop) -> None:
    shop.add(1, 10)
    world = World()
    world.run(shop.feed())
    with pytest.raises(InvalidValue, match="the watermark is a number"):
        world.run(shop.feed(lookback="10m"))


def test_databases_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="--database"):
        QueryFeed("nonsense", SELECT, "added", COLUMNS)
    with pytest.raises(InvalidValue, match=r"there is no file .*mistyped\.db"):
        QueryFeed(f"sqlite:///{tmp_path}/mistyped.db", SELECT, "added", COLUMNS)
    assert not list(tmp_path.iterdir())
    with pytest.raises((InvalidValue, DefinitionError), match="--database"):
        QueryFeed("mysql+pymysql://u@h/d", SELECT, "added", COLUMNS)


def test_a_password_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    url = sqlalchemy.make_url("postgresql://ann:secret@host/shop")
    monkeypatch.setattr(sqlalchemy, "create_engine", lambda _: SimpleNamespace(url=url))
    name = QueryFeed("any", SELECT, "added", COLUMNS).name
    assert "secret" not in name
    assert "ann" in name


@pytest.mark.parametrize(
    ("value", "lookback", "before"),
    [
        (5, None, 5),
        (5, "2", 3),
        (5.5, "0.5", 5.0),
        (Decimal("5.5"), "0.5", Decimal("5.0")),
        (datetime(2024, 1, 1, 0, 10), "10m", datetime(2024, 1, 1)),
        (date(2024, 1, 3), "1h", date(2024, 1, 2)),
        ("b", None, "b"),
        ("2024-01-01T00:10:00.500000", "500ms", "2024-01-01T00:10:00"),
        ("2024-01-01T00:10:00+02:00", "10m", "2024-01-01T00:00:00+02:00"),
    ],
)
def test_watermarks_come_back_and_go_back(value: Any, lookback: str | None, before: Any) -> None:
    mark = Watermark.of(value)
    assert (mark.value, type(mark.value)) == (value, type(value))
    assert mark.before(lookback) == before


@pytest.mark.parametrize("value", [b"x", True, [1]])
def test_what_has_no_order_is_no_watermark(value: Any) -> None:
    with pytest.raises(InvalidValue):
        Watermark.of(value)


def test_texts_that_are_no_times_have_nothing_before_them() -> None:
    with pytest.raises(InvalidValue, match="is no time"):
        Watermark.of("b").before("10m")
    with pytest.raises(CorruptState):
        _ = Watermark(kind="thing", text="x").value
