"""Row views on a real server; windows have theirs in test_online."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock, SystemClock
from headway.core.errors import Conflict, CorruptState, Unavailable
from headway.core.times import DAY
from headway.core.types import Columns, Principal
from headway.features.catalogue.card import view_card
from headway.features.definitions import Entity, EventSource, FeatureService, RowView
from headway.features.ingest import ingest
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.materialize import materialize
from headway.features.online import OnlineReader, OnlineRows
from headway.features.online_store import OnlineStore
from headway.features.rows.codec import row_prefix
from headway.features.rows.value import unpack
from headway.features.status import SLACK, Status
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import CARD, Event, a_view, endless_view
from tests.features.oracle import SOURCE as PAYMENTS
from tests.features.samples import table

SOURCE = EventSource(
    name="limits",
    columns={
        "change": "int64",
        "card": "int64",
        "limit": "float64",
        "tier": "string",
        "open": "bool",
        "since": "int64",
    },
    id="change",
    bucket_by="card",
    buckets=2,
    purposes=("testing",),
)
LIMITS = RowView(name="limits", entity=CARD, source=SOURCE, columns=("limit", "since"), ttl=1_000)
CARDS = RowView(name="cards", entity=CARD, source=SOURCE, columns=("tier", "open"))
SERVICE = FeatureService(name="rows", views=(LIMITS, CARDS), request={})
Change = tuple[int, int, int, int]
"""card, event_time, known_time, id."""


def changes(rows: list[Change]) -> pa.Table:
    return pa.table(
        {
            "card": pa.array([r[0] for r in rows], pa.int64()),
            "event_time": pa.array([r[1] for r in rows], pa.int64()),
            "known_time": pa.array([r[2] for r in rows], pa.int64()),
            "change": pa.array([r[3] for r in rows], pa.int64()),
            "limit": pa.array([None if r[3] % 5 == 0 else r[3] / 2 for r in rows], pa.float64()),
            "tier": pa.array([None if r[3] % 7 == 0 else f"tier {r[3]}" for r in rows], pa.string()),
            "open": pa.array([None if r[3] % 11 == 0 else r[3] % 2 == 1 for r in rows], pa.bool_()),
            "since": pa.array([None if r[3] % 3 == 0 else r[3] for r in rows], pa.int64()),
        }
    )


def read(service: FeatureService, url: str, keys: list[int | None], at: list[int]) -> OnlineRows:
    async def go() -> OnlineRows:
        reader = OnlineReader(service, url)
        try:
            return await reader.read({"card": np.array(keys, object)}, np.array(at, np.int64))
        finally:
            await reader.close()

    return asyncio.run(go())


def limits_of(row: Change | None) -> tuple[float, float]:
    if row is None:
        return (np.nan, np.nan)
    return (np.nan if row[3] % 5 == 0 else row[3] / 2, np.nan if row[3] % 3 == 0 else row[3])


histories = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), max_size=25
).map(lambda rows: [(card, event, event + later, number) for card, event, later, number in rows])


@given(histories, st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_writes_in_any_order_and_number_keep_the_newest(
    redis_url: str, history: list[Change], writes: int, order: random.Random
) -> None:
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    client.close()
    store = OnlineStore(redis_url)
    late = [*history, *history[: len(history) // 2]]
    order.shuffle(late)
    for part in range(writes):
        for view in (LIMITS, CARDS):
            store.write(view, changes(late[part::writes]))
    store.close()
    found = read(SERVICE, redis_url, [0, 1, 2, 3, 4], [20] * 5)
    for card in range(5):
        newest = max((row for row in history if row[0] == card), key=lambda row: row[1:], default=None)
        assert found.status["limits"][card] == (Status.MISSING if newest is None else Status.PRESENT)
        pair = (found.columns["limits__limit"][card], found.columns["limits__since"][card])
        np.testing.assert_array_equal(pair, limits_of(newest))
        tier = None if newest is None or newest[3] % 7 == 0 else f"tier {newest[3]}"
        assert found.columns["cards__tier"][card] == tier


def test_what_a_row_rests_on(online_url: str) -> None:
    store = OnlineStore(online_url)
    store.write(LIMITS, changes([(1, 100, 150, 7), (2, 100, 100, 8)]))
    keys: list[int | None] = [1, 1, 1, 1, 1, None, 9]
    found = read(SERVICE, online_url, keys, [99, 149, 150, 1_100, 1_101, 150, 150])
    assert found.status["limits"].tolist() == [
        Status.TRUNCATED,  # newer than t: what was before it is not kept
        Status.TRUNCATED,  # happened, not known yet
        Status.PRESENT,
        Status.PRESENT,  # the bound of the ttl is inclusive
        Status.EXPIRED,
        Status.MISSING,
        Status.MISSING,
    ]
    np.testing.assert_array_equal(
        found.columns["limits__limit"], np.array([np.nan, np.nan, 3.5, 3.5, np.nan, np.nan, np.nan])
    )
    assert found.status["cards"].tolist() == [Status.MISSING] * 7
    assert found.columns["cards__tier"].tolist() == [None] * 7


def test_without_the_cutoff_a_row_counts_from_its_event_time_on(online_url: str) -> None:
    OnlineStore(online_url).write(LIMITS, changes([(1, 100, 150, 7)]))

    async def go() -> OnlineRows:
        reader = OnlineReader(SERVICE, online_url, cutoff=False)
        found = await reader.read({"card": np.array([1, 1])}, np.array([99, 100]))
        await reader.close()
        return found

    assert asyncio.run(go()).status["limits"].tolist() == [Status.TRUNCATED, Status.PRESENT]


def test_concurrent_writers_never_take_a_newer_row_back(online_url: str) -> None:
    """Six writers, two views in one value, every row once, in six random orders: the newest of each key stays."""
    rows = [(card, event, event, event * 13 + 1) for card in range(4) for event in range(60)]
    failures: list[BaseException] = []

    def write(number: int) -> None:
        mine = rows[:]
        random.Random(number).shuffle(mine)
        store = OnlineStore(online_url)
        try:
            for begin in range(0, len(mine), 16):
                store.write((LIMITS, CARDS)[number % 2], changes(mine[begin : begin + 16]))
        except BaseException as error:
            failures.append(error)
        store.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    client = redis.Redis.from_url(online_url)
    for card in range(4):
        kept = unpack(client.get(row_prefix(CARD) + b"%d" % card), CARD)
        assert [row.rank for row in kept.values()] == [(59, 59, 59 * 13 + 1)] * 2
    client.close()


def test_a_repeated_write_changes_nothing(online_url: str) -> None:
    store = OnlineStore(online_url)
    rows = changes([(1, 5, 5, 1), (1, 6, 6, 2), (2, 5, 5, 3)])
    report = store.write(LIMITS, rows)
    assert (report.keys, report.events, report.pruned) == (2, 3, 1)
    assert store.write(LIMITS, rows).pruned == 3
    assert store.write(LIMITS, changes([])).keys == 0


def test_keys_expire_after_the_longest_lived_of_their_rows(online_url: str) -> None:
    now = SystemClock().now() // 1_000 * 1_000
    day = RowView(name="day", entity=CARD, source=SOURCE, columns=("limit",), ttl=DAY)
    week = RowView(name="week", entity=CARD, source=SOURCE, columns=("limit",), ttl=7 * DAY)
    store, client, key = OnlineStore(online_url), redis.Redis.from_url(online_url), row_prefix(CARD) + b"1"

    def written(view: RowView, event_time: int, number: int) -> int:
        store.write(view, changes([(1, event_time, event_time, number)]))
        return int(client.execute_command("PEXPIRETIME", key))

    until_day, until_week = (now + ttl + SLACK for ttl in (DAY, 7 * DAY))
    assert written(day, now, 1) * 1_000 == until_day
    assert written(week, now, 1) * 1_000 == until_week
    assert written(day, now + 1_000, 2) * 1_000 == until_week  # the other view's row needs it
    assert written(CARDS, now, 1) == -1
    assert written(day, now + 2_000, 3) == -1
    client.delete(key)
    assert written(day, 852_076_800_000_000, 1) == -1  # 1997, replayed
    assert written(day, now, 2) * 1_000 == until_day
    client.close()


def test_clearing_a_view_leaves_the_others(online_url: str) -> None:
    store = OnlineStore(online_url)
    rows = changes([(card, 5, 5, 1) for card in range(1_200)])
    for view in (LIMITS, CARDS):
        store.write(view, rows)
        store.set_watermark(view, 9)
    assert store.clear(LIMITS) == 1_200
    assert store.clear(LIMITS) == 0
    found = read(SERVICE, online_url, [3], [6])
    assert (found.status["limits"][0], found.status["cards"][0]) == (Status.MISSING, Status.PRESENT)
    assert found.watermark == {"limits": 0, "cards": 9}
    assert store.clear(CARDS) == 1_200
    client = redis.Redis.from_url(online_url)
    assert client.keys("headway:r:*") == []
    client.close()


def test_strings_as_keys_and_ids(online_url: str) -> None:
    source = EventSource(
        name="people", columns={"mail": "string", "user": "string", "age": "int64"}, id="mail", bucket_by="user"
    )
    view = RowView(
        name="people", entity=Entity(name="user", key="user", dtype="string"), source=source, columns=("age",)
    )
    rows = pa.table({"mail": ["a", "b", "b"], "user": ["ü", None, "x"], "age": [1, 4, 5], "event_time": [1, 2, 2]})
    OnlineStore(online_url).write(view, rows)

    async def go() -> OnlineRows:
        reader = OnlineReader(FeatureService(name="v", views=(view,), request={}), online_url)
        found = await reader.read({"user": np.array(["ü", "x", "ü"], object)}, np.array([5, 5, 5]))
        await reader.close()
        return found

    column = asyncio.run(go()).columns["people__age"]
    assert column.tolist() == [1, 5, 1]
    assert column.dtype == np.int64


def test_foreign_bytes_are_reported_not_deleted(online_url: str) -> None:
    client, name = redis.Redis.from_url(online_url), row_prefix(CARD) + b"1"
    client.set(name, b"x")
    with pytest.raises(CorruptState, match="materialize"):
        OnlineStore(online_url).write(LIMITS, changes([(1, 1, 1, 1)]))
    with pytest.raises(CorruptState, match="headway:r:card"):
        read(SERVICE, online_url, [1], [1])
    assert client.get(name) == b"x"
    client.close()


def test_endless_contention_is_a_conflict_and_no_server_unavailable(
    online_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    store = OnlineStore(online_url)
    monkeypatch.setattr(store._rows, "_swap", lambda keys, args: list(range(1, len(keys) + 1)))
    with pytest.raises(Conflict):
        store.write(LIMITS, changes([(1, 1, 1, 1)]))
    with pytest.raises(Unavailable):
        OnlineStore(f"unix://{tmp_path}/nothing").write(LIMITS, changes([(1, 1, 1, 1)]))


def test_ingestion_and_materialisation_serve_windows_and_rows_together(
    lake: Location, clock: ManualClock, analyst: Principal, online_url: str
) -> None:
    service = FeatureService(name="mixed", views=(LIMITS, a_view(), CARDS), request={})
    clerk = Principal(
        sub="c", kind="workload", purpose="testing", expires=2**60,
        scopes=frozenset({"ingest:payments", "ingest:limits"}),
    )  # fmt: skip
    store, audit, committer = OnlineStore(online_url), MemoryAudit(clock), Committer(lake, clock)
    for source, rows, views in (
        (SOURCE, changes([(card, 5 + card, 6 + card, card) for card in range(8)]), (LIMITS, CARDS)),
        (PAYMENTS, table([Event(card, 4, 5, card, 100) for card in range(8)]), (a_view(),)),
    ):
        ingest(source, rows, committer, store, views, "b", clock, principal=clerk, audit=audit, watermark=20)

    async def go() -> OnlineRows:
        reader = OnlineReader(service, online_url)
        found = await reader.read({"card": np.array([3, 9])}, np.array([10, 10]))
        await reader.close()
        return found

    first = asyncio.run(go())
    assert list(first.status) == ["limits", "activity", "cards"]
    assert first.columns["activity__count_10us"].tolist() == [1.0, 0.0]
    assert first.columns["limits__limit"].tolist()[0] == 1.5
    assert first.watermark == {"limits": 20, "activity": 20, "cards": 20}
    for view in service.stored:
        store.clear(view)
    reports = materialize(service.stored, LakeReader(lake, audit, clock), store, analyst, "testing", known_by=20)
    assert [name.split("@")[0] for name in reports] == ["limits", "activity", "cards"]
    assert {(report.keys, report.events) for report in reports.values()} == {(8, 8)}
    again = asyncio.run(go())
    columns: Columns = again.columns
    for name, column in first.columns.items():
        assert columns[name].tolist() == pytest.approx(column.tolist(), nan_ok=True) or column.dtype == object
    assert again.watermark == first.watermark


def test_watermarks_are_read_together_by_the_versions_that_the_catalogue_names(online_url: str) -> None:
    store, views = OnlineStore(online_url), (a_view(), endless_view(30))
    names = [view_card(view).version for view in views]
    assert store.watermarks([]) == {}
    assert store.watermarks(names) == dict.fromkeys(names, 0)
    store.set_watermark(views[0], 77)
    assert store.watermarks(names) == {names[0]: 77, names[1]: 0}
