from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import Forbidden, InvalidValue
from headway.core.types import Columns, Int64, Principal
from headway.features.consistency import check
from headway.features.definitions import EventSource, FeatureService, RowView
from headway.features.historical import offline_features
from headway.features.ingest import ingest
from headway.features.kernel import kernel_sha256, matrix, transform
from headway.features.lake.committer import Batch, Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location, TableSpec
from headway.features.materialize import materialize
from headway.features.online import OnlineReader
from headway.features.online_store import OnlineStore
from headway.features.windows.events import event_ids
from headway.governance.audit_event import MemoryAudit
from tests.features.histories import (
    BY_CARD,
    BY_SHOP,
    FACTS,
    LIMITS,
    MIXED,
    OF_SHOP,
    SERVICE,
    SHOP,
    a_history,
    a_spine,
    limits,
    sales,
    same,
)
from tests.features.oracle import SOURCE, Event, a_view, endless_view, feature
from tests.features.samples import table


def test_rows_come_back_as_they_went_in_with_the_oracles_values(reader: LakeReader, analyst: Principal) -> None:
    spine, history = a_spine(300, 2), a_history(2_000, 1)
    found = offline_features(spine, SERVICE, reader, analyst, "testing")
    assert found["row_id"].to_pylist() == list(range(300))
    for name in ("note", "card", "shop", "event_time"):
        assert found[name].to_pylist() == spine[name].to_pylist()
    cards, at = spine["card"].to_pylist(), spine["event_time"].to_pylist()
    for view in (a_view(), endless_view(30)):
        for name, a in zip(view.features, view.aggregates, strict=True):
            expected = [
                feature(view, a, history, -1 if c is None else c, t, True) for c, t in zip(cards, at, strict=True)
            ]
            assert found[name].to_numpy().tobytes() == np.array(expected, np.float32).tobytes(), name
    by_shop = [Event(e.key % 5, e.event_time, e.known_time, e.id, e.value) for e in history]
    counts = [
        feature(BY_SHOP, BY_SHOP.aggregates[0], by_shop, -1 if c is None else c % 7, t, True)
        for c, t in zip(cards, at, strict=True)
    ]
    assert found["by_shop__count_40us"].to_pylist() == counts
    amount, events = found["amount"].to_numpy(), found["activity__count_40us"].to_numpy()
    expected_odd = np.where(np.array(at) % 2 == 1, amount, events)
    assert found["odd"].to_numpy().tobytes() == expected_odd.astype(np.float32).tobytes()


def test_pinned_snapshots_do_not_see_later_events(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    service = FeatureService(name="one", views=(a_view(),), request={})
    writer = Committer(lake, clock)
    pinned = writer.append(SOURCE, table([Event(1, 10, 10, 1, 100)]), "a")
    writer.append(SOURCE, table([Event(1, 11, 11, 2, 100)]), "b")
    reader = LakeReader(lake, MemoryAudit(clock), clock)
    spine = pa.table({"card": [1], "event_time": [15]})
    for snapshots, expected in (({SOURCE.table: pinned}, 1.0), ({}, 2.0)):
        found = offline_features(spine, service, reader, analyst, "testing", snapshots=snapshots)
        assert found["activity__count_10us"].to_pylist() == [expected]


def test_an_empty_spine_and_wrong_columns(reader: LakeReader, analyst: Principal) -> None:
    empty = a_spine(5, 1).slice(0, 0)
    assert offline_features(empty, SERVICE, reader, analyst, "testing").num_rows == 0
    for wrong, field in (("amount", "amount"), ("card", "card"), ("event_time", "event_time")):
        with pytest.raises(InvalidValue, match=field):
            offline_features(a_spine(5, 1).drop_columns([wrong]), SERVICE, reader, analyst, "testing")
    with pytest.raises(InvalidValue, match="row_id"):
        taken = a_spine(5, 1).append_column("row_id", pa.array(range(5)))
        offline_features(taken, SERVICE, reader, analyst, "testing")


class Spooled:
    """Keeps batches, to be committed together."""

    def __init__(self) -> None:
        self.batches: dict[str, list[tuple[Batch, str]]] = {}

    def append(self, table: EventSource | TableSpec, data: Batch, batch_id: str) -> int:
        self.batches.setdefault(table.name, []).append((data, batch_id))
        return 0


def test_replayed_reads_equal_the_recomputation(
    lake: Location, clock: ManualClock, analyst: Principal, online_url: str
) -> None:
    """Events stream in by known_time, reads happen between them; 10,000 reads recomputed offline: no mismatch."""
    history = sorted(a_history(4_000, 3), key=lambda e: e.known_time)
    clerk = Principal(
        sub="c",
        kind="workload",
        purpose="testing",
        expires=2**60,
        scopes=frozenset({"ingest:payments", "ingest:sales"}),
    )
    writer, store, audit = Spooled(), OnlineStore(online_url), MemoryAudit(clock)
    spine = a_spine(10_000, 4).filter(pa.array(np.arange(10_000) % 50 != 0)).sort_by("event_time")
    served: list[pa.Table] = []

    async def replay() -> None:
        reader = OnlineReader(SERVICE, online_url)
        done = 0
        for number, edge in enumerate([*range(0, 3_500, 50), 10_000]):
            part = [e for e in history if edge - 50 < e.known_time <= edge] if edge < 10_000 else []
            if number == 0:
                part = [e for e in history if e.known_time <= edge]
            for source, rows, views in ((SOURCE, table(part), SERVICE.stored[:2]), (SHOP, sales(part), (BY_SHOP,))):
                ingest(
                    source,
                    rows,
                    writer,
                    store,
                    views,
                    f"b{number}",
                    clock,
                    principal=clerk,
                    audit=audit,
                    watermark=edge,
                )
            # decisions of (edge, edge + 50] must see what is known at each of them: write ahead, the cutoff hides it
            ahead = [e for e in history if edge < e.known_time <= edge + 50]
            for view, rows in (
                (SERVICE.stored[0], table(ahead)),
                (SERVICE.stored[1], table(ahead)),
                (BY_SHOP, sales(ahead)),
            ):
                store.write(view, rows)
            while done < spine.num_rows:
                rows = spine.slice(done, 32)
                rows = rows.filter(pa.array(rows["event_time"].to_numpy() < edge + 50))
                if rows.num_rows == 0:
                    break
                done += rows.num_rows
                at: Int64 = rows["event_time"].to_numpy()
                keys: Columns = {"card": rows["card"].to_numpy(), "shop": np.array(rows["shop"].to_pylist(), object)}
                found = await reader.read(keys, at)
                columns: Columns = {**found.columns, "amount": rows["amount"].to_numpy().astype(np.float32)}
                columns = transform(SERVICE, columns, at)
                values = matrix(SERVICE, columns)
                for i, name in enumerate(SERVICE.features):
                    if name != "amount":
                        rows = rows.append_column(name, pa.array(values[:, i]))
                served.append(rows)
        await reader.close()

    asyncio.run(replay())
    for source in (SOURCE, SHOP):
        Committer(lake, clock).append_many(source, writer.batches[source.name])
    log = pa.concat_tables(served)
    report = check(SERVICE, log, LakeReader(lake, audit, clock), analyst, "testing")
    assert report.reads == log.num_rows == spine.num_rows
    assert report.mismatches == 0, report.differing
    broken = log.set_column(
        log.column_names.index("activity__count_40us"),
        "activity__count_40us",
        pa.array(np.where(np.arange(log.num_rows) == 7, 99, log["activity__count_40us"].to_numpy()).astype(np.float32)),
    )
    report = check(SERVICE, broken, LakeReader(lake, audit, clock), analyst, "testing")
    (differing,) = report.differing
    assert differing.worst is not None
    assert (report.mismatches, differing.feature, differing.mismatched, differing.worst.row) == (
        *(1, "activity__count_40us", 1),
        7,
    )


def test_materialising_from_the_lake_reads_like_offline(
    reader: LakeReader, analyst: Principal, online_url: str
) -> None:
    store = OnlineStore(online_url)
    for _ in range(2):
        materialize(SERVICE.stored, reader, store, analyst, "testing", known_by=3_500)
    assert store.watermark(BY_SHOP) == 3_500
    spine = pa.table(
        {
            "card": range(20),
            "shop": [f"shop {i % 5}" for i in range(20)],
            "amount": [1.0] * 20,
            "event_time": [3_500] * 20,
        }
    )
    expected = offline_features(spine, SERVICE, reader, analyst, "testing")

    async def go() -> None:
        online = OnlineReader(SERVICE, online_url)
        keys: Columns = {"card": np.arange(20), "shop": np.array(spine["shop"].to_pylist(), object)}
        found = await online.read(keys, np.full(20, 3_500))
        await online.close()
        for name, column in found.columns.items():
            assert column.tobytes() == expected[name].to_numpy().tobytes(), name

    asyncio.run(go())


def test_ingestion_without_the_right_is_refused_and_recorded(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    audit = MemoryAudit(clock)
    with pytest.raises(Forbidden, match="ingest:payments"):
        ingest(SOURCE, table([]), Committer(lake, clock), None, (), "a", clock, principal=analyst, audit=audit)
    assert [(e.action, e.outcome) for e in audit.events] == [("data.ingest", "denied")]


def test_the_kernel_hash_follows_the_definition() -> None:
    other = FeatureService(name="both", views=(a_view(7),), request={})
    assert kernel_sha256(SERVICE) == kernel_sha256(SERVICE)
    assert kernel_sha256(SERVICE) != kernel_sha256(other)


def newest(rows: list[dict[str, Any]], view: RowView, key: object, t: int) -> dict[str, Any]:
    """The definition of a RowView with the cutoff on."""
    seen = [
        (row["event_time"], row["known_time"], int(event_ids(np.array([row["change"]], object))[0]), row)
        for row in rows
        if key is not None and row[view.entity.keys[0]] == key and row["event_time"] <= t and row["known_time"] <= t
    ]
    best = max(seen, key=lambda item: item[:3], default=None)
    if best is None or (view.ttl is not None and t - best[0] > view.ttl):
        return dict.fromkeys(view.columns)
    return {name: best[3][name] for name in view.columns}


def test_row_views_beside_window_views_keep_their_types(mixed_reader: LakeReader, analyst: Principal) -> None:
    spine = a_spine(400, 12)
    found = offline_features(spine, MIXED, mixed_reader, analyst, "testing")
    kinds = {name: found.schema.field(f"facts__{name}").type for name in FACTS}
    assert kinds == {
        "limit": pa.float32(),
        "score": pa.float64(),
        "visits": pa.int64(),
        "blocked": pa.bool_(),
        "tier": pa.string(),
        "since": pa.int64(),
    }
    rows = limits(600, 9).to_pylist()
    for view in (BY_CARD, OF_SHOP):
        keys, at = spine[view.entity.keys[0]].to_pylist(), spine["event_time"].to_pylist()
        expected = [newest(rows, view, key, t) for key, t in zip(keys, at, strict=True)]
        for column, name in zip(view.columns, view.features, strict=True):
            assert found[name].to_pylist() == [row[column] for row in expected], name
    alone = offline_features(
        spine, FeatureService(name="w", views=(a_view(), BY_SHOP), request={}), mixed_reader, analyst, "testing"
    )
    same(
        found.select(["activity__count_10us", *BY_SHOP.features]),
        alone.select(["activity__count_10us", *BY_SHOP.features]),
    )


def test_row_views_of_an_empty_table(lake: Location, clock: ManualClock, analyst: Principal) -> None:
    Committer(lake, clock).append(LIMITS, limits(3, 1).slice(0, 0), "none")
    service = FeatureService(name="rows", views=(BY_CARD, OF_SHOP), request={})
    reader = LakeReader(lake, MemoryAudit(clock), clock)
    found = offline_features(a_spine(60, 1), service, reader, analyst, "testing")
    assert all(found[name].null_count == 60 for name in (*BY_CARD.features, *OF_SHOP.features))
    assert offline_features(a_spine(60, 1).slice(0, 0), service, reader, analyst, "testing").num_rows == 0
