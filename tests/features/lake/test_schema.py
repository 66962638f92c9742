from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.canonical import canonical
from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import DefinitionError, InvalidValue
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.aggregates import count, largest, total
from headway.features.arrow import conform
from headway.features.catalogue.registry import apply
from headway.features.definitions import DTYPES, EventSource, FeatureService, RowView, WindowView
from headway.features.evolution import versions, view_of
from headway.features.historical import offline_features
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.schema import ensure_table, growth
from headway.features.lake.tables import Location, TableSpec, open_catalog, spec_of
from headway.features.materialize import materialize
from headway.features.online import OnlineReader, OnlineRows
from headway.features.online_store import OnlineStore
from headway.features.recompute import LakeFeatures
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import partition_of
from headway.governance.audit_event import MemoryAudit
from tests.features.histories import a_history
from tests.features.oracle import CARD, Event, feature
from tests.features.samples import table
from tests.features.streams.world import TOPIC, World, message, payments, principal

OLD = EventSource(
    name="payments",
    columns={"payment": "int64", "card": "int64", "amount": "float32"},
    id="payment",
    bucket_by="card",
    buckets=4,
    purposes=("testing",),
)
NEW = dataclasses.replace(
    OLD, columns={"payment": "int64", "tip": "float64", "card": "int64", "amount": "float64"}, optional=("tip",)
)
TIPS = WindowView(
    name="tips",
    entity=CARD,
    source=NEW,
    aggregates=(*count("40us"), *total("tip", "40us", scale=100), *largest("tip", "40us", scale=100)),
    max_events=1_000,
)
ROW = RowView(name="latest", entity=CARD, source=NEW, columns=("tip", "amount"))
SERVICE = FeatureService(name="tips", views=(TIPS, ROW), request={})
ICEBERG = {"int64": "long", "float32": "float", "float64": "double", "string": "string", "bool": "boolean"}


def old_rows(history: list[Event]) -> pa.Table:
    rows = table(history)
    return rows.set_column(rows.column_names.index("amount"), "amount", rows["amount"].cast(pa.float32()))


def new_rows(history: list[Event]) -> pa.Table:
    return table(history).append_column("tip", table(history)["amount"])


def typed(columns: dict[str, str]) -> dict[str, str]:
    return {name: ICEBERG[dtype] for name, dtype in columns.items()}


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(sorted(ICEBERG))), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_table_grows_by_columns_and_takes_every_earlier_definition(
    steps: list[tuple[str, str]], dice: random.Random
) -> None:
    have: dict[str, str] = {"id": "int64"}
    before = [typed(have)]
    definitions = [dict(have)]
    for name, dtype in steps:
        if name in have and (have[name], dtype) != ("float32", "float64"):
            continue
        have[name] = dtype
        shuffled = list(have.items())
        dice.shuffle(shuffled)
        grown = growth(TableSpec(name="a.b", columns=dict(shuffled)), before[-1], before)
        assert {**before[-1], **typed(grown.added), **typed(grown.widened)} == typed(have)
        before.append(typed(have))
        definitions.append(dict(have))
        for earlier in definitions:
            none = growth(TableSpec(name="a.b", columns=earlier), before[-1], before)
            assert not none.added
            assert not none.widened
    wrong = dice.choice(sorted(have))
    others = [dtype for dtype in DTYPES if dtype not in (have[wrong], "timestamp")]
    for change in ({}, *({wrong: dtype} for dtype in others)):
        columns = {**{name: dtype for name, dtype in have.items() if name != wrong}, **change, "new": "int64"}
        if change and (have[wrong], change[wrong]) == ("float32", "float64"):
            continue
        with pytest.raises(DefinitionError) as caught:
            growth(TableSpec(name="a.b", columns=columns), before[-1], before)
        assert caught.value.field == f"a.b.{wrong}"
        assert "another name" in str(caught.value)


@pytest.fixture
def reader(lake: Location, clock: ManualClock) -> LakeReader:
    """Old events, then new ones, then some more of a writer that still has the old definition."""
    history = a_history(900, 1)
    Committer(lake, clock).append(OLD, old_rows(history[:300]), "a")
    late = Committer(lake, clock)
    late.ensure(OLD)
    Committer(lake, clock).append(NEW, new_rows(history[300:600]), "b")
    late.append_all([(OLD, old_rows(history[600:700]), "c"), (NEW, new_rows(history[700:900]), "d")])
    return LakeReader(lake, MemoryAudit(clock), clock)


def with_tips(history: list[Event]) -> list[Event]:
    """The events whose values are tips: those of the old definition have none."""
    return [
        dataclasses.replace(event, value=event.value if 300 <= number < 600 or number >= 700 else None)
        for number, event in enumerate(history)
    ]


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_from_before_a_column_read_as_null_at_any_time(
    reader: LakeReader, lake: Location, clock: ManualClock, analyst: Principal, online_url: str, compacted: bool
) -> None:
    if compacted:
        Committer(lake, clock).compact_step(OLD.table, whole=True)
    history = with_tips(a_history(900, 1))
    store = OnlineStore(online_url, clock=clock)
    materialize((TIPS, ROW), reader, store, analyst, "testing")
    keys = np.arange(20)
    at = np.full(20, 2_999)
    spine = pa.table({"card": np.tile(keys, 30), "event_time": np.repeat(np.arange(90, 2_999, 97)[:30], 20)})
    joined = offline_features(spine, SERVICE, reader, analyst, "testing")
    direct = LakeFeatures(SERVICE, lambda: reader, lambda: analyst).read(["tips", "latest"], {"card": keys}, at)

    async def go() -> OnlineRows:
        online = OnlineReader(SERVICE, online_url)
        try:
            return await online.read({"card": keys}, at)
        finally:
            await online.close()

    served = asyncio.run(go())
    cards, times = spine["card"].to_pylist(), spine["event_time"].to_pylist()
    for name, a in zip(TIPS.features, TIPS.aggregates, strict=True):
        expected = [feature(TIPS, a, history, card, time, True) for card, time in zip(cards, times, strict=True)]
        assert joined[name].to_numpy().tobytes() == np.array(expected, np.float32).tobytes(), name
        now = np.array([feature(TIPS, a, history, card, 2_999, True) for card in range(20)], np.float32)
        for found in (served, direct):
            assert found.columns[name].astype(np.float32).tobytes() == now.tobytes(), name
    newest: dict[tuple[int, int], float | None] = {}
    for event in sorted(history, key=lambda e: (e.event_time, e.known_time, e.id)):
        for time in {*times, 2_999}:
            if event.event_time <= time and event.known_time <= time:
                newest[event.key, time] = None if event.value is None else event.value / 100
    assert joined["latest__tip"].to_pylist() == [newest.get(pair) for pair in zip(cards, times, strict=True)]


def test_an_older_snapshot_and_a_table_that_has_not_grown_yet_read_as_null(
    lake: Location, clock: ManualClock, analyst: Principal
) -> None:
    first = Committer(lake, clock).append(OLD, old_rows(a_history(100, 1)), "a")
    reader = LakeReader(lake, MemoryAudit(clock), clock)
    spine = pa.table({"card": np.arange(20), "event_time": np.full(20, 5_000)})
    ahead = offline_features(spine, SERVICE, reader, analyst, "testing")
    Committer(lake, clock).append(NEW, new_rows(a_history(100, 1)), "b")
    pinned = offline_features(spine, SERVICE, reader, analyst, "testing", snapshots={OLD.table: first})
    assert repr(ahead.to_pylist()) == repr(pinned.to_pylist()), "NaN is not equal to itself"
    assert ahead["latest__tip"].null_count == 20
    assert ahead["latest__amount"].null_count < 20
    rows = reader.scan(NEW, analyst, "testing", snapshot_id=first)
    assert (rows["tip"].null_count, rows["amount"].type) == (100, pa.float64())
    assert reader.scan(OLD, analyst, "testing").num_rows == 200


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        ({"payment": "int64", "card": "int64"}, "amount"),
        ({"payment": "int64", "card": "int64", "sum": "float32"}, "amount"),
        ({"payment": "int64", "card": "int64", "amount": "string"}, "amount"),
        ({"payment": "float32", "card": "int64", "amount": "float32"}, "payment"),
    ],
)
def test_any_other_change_is_refused_by_name_with_a_way_out(
    tmp_path: Path, clock: ManualClock, columns: dict[str, str], column: str
) -> None:
    settings = Settings(home=tmp_path)
    lake = Location.of(settings)
    writer = Principal(sub="w", kind="ci", scopes=frozenset({"features:write"}), purpose="testing", expires=2**60)
    Committer(lake, clock).append(OLD, old_rows(a_history(10, 1)), "a")
    wrong = dataclasses.replace(OLD, columns=columns)
    view = WindowView(name="n", entity=CARD, source=wrong, aggregates=count("40us"))
    for act in (
        lambda: Committer(lake, clock).append(wrong, table([]), "b"),
        lambda: Committer(lake, clock).ensure(wrong),
        lambda: apply([FeatureService(name="s", views=(view,), request={})], settings, writer, MemoryAudit(clock)),
    ):
        with pytest.raises(DefinitionError, match="another name") as caught:
            act()
        assert caught.value.field == f"events.payments.{column}"
    for wider in (dataclasses.replace(OLD, buckets=8), dataclasses.replace(OLD, bucket_by="payment")):
        with pytest.raises(DefinitionError, match="buckets") as caught:
            Committer(lake, clock).ensure(wider)
        assert caught.value.field == "events.payments.bucket_by"
    assert open_catalog(lake).load_table(OLD.table).schema().column_names[:3] == ["payment", "card", "amount"]


def test_the_narrow_definition_is_an_earlier_one_only_where_the_table_had_it(
    lake: Location, clock: ManualClock
) -> None:
    committer = Committer(lake, clock)
    committer.ensure(NEW)
    with pytest.raises(DefinitionError, match="definition does not"):
        committer.ensure(OLD)
    narrow = dataclasses.replace(NEW, columns={**NEW.columns, "amount": "float32"})
    with pytest.raises(DefinitionError, match="float32 cannot go into a lake column of float64"):
        committer.ensure(narrow)


def test_an_optional_column_may_be_missing_and_no_other() -> None:
    rows = old_rows(a_history(10, 1))
    assert conform(NEW, rows)["tip"].null_count == 10
    with pytest.raises(InvalidValue, match="optional") as caught:
        conform(dataclasses.replace(NEW, optional=()), rows)
    assert caught.value.field == "tip"
    for wrong in (("tipp",), ("payment",)):
        with pytest.raises(DefinitionError) as refused:
            dataclasses.replace(NEW, optional=wrong)
        assert refused.value.field == "payments.optional"


def test_a_model_in_service_keeps_its_view_when_a_column_gets_wider() -> None:
    before = RowView(name="latest", entity=CARD, source=OLD, columns=("amount",))
    now = RowView(name="latest", entity=CARD, source=NEW, columns=("amount",))
    stored = json.loads(canonical(before.describe()))
    assert view_of(stored, NEW).describe() == before.describe() != now.describe()
    assert [view.describe() for view in versions([now], [stored], {NEW.name: NEW})] == [
        now.describe(),
        before.describe(),
    ]


def test_processors_of_both_definitions_run_side_by_side(
    lake: Location, clock: ManualClock, online_url: str, analyst: Principal
) -> None:
    stream = RedisStream(online_url)
    topic = stream.create(TOPIC, partitions=2)
    places = {partition_of(str(key).encode(), 2): key for key in range(50)}
    keys = [places[0], places[1]]
    control = MemoryControlStore()
    worlds = [World(online_url, lake, clock, stream, control, views=()) for _ in range(2)]
    for world, source in zip(worlds, (OLD, NEW), strict=True):
        world.parts = dataclasses.replace(world.parts, source=source)
    events = [dataclasses.replace(event, key=keys[number % 2]) for number, event in enumerate(payments(0, 40))]
    processors = [worlds[number].processor(number) for number in range(2)]
    for first in (0, 20):
        stream.publish(topic, [message(event, tip=0.5) for event in events[first : first + 10]])
        stream.publish(topic, [message(event) for event in events[first + 10 : first + 20]])
        for processor in processors:
            while processor.step():
                pass
            processor.flush()
    rows = worlds[1].reader.scan(NEW, principal("data:read"), "testing").sort_by("payment")
    assert rows["payment"].to_pylist() == list(range(40))
    tipped = [number % 2 == 1 and number % 20 < 10 for number in range(40)]
    assert [tip == 0.5 for tip in rows["tip"].to_pylist()] == tipped
    assert rows["tip"].null_count == 40 - sum(tipped)
    assert processors[0].progress.unknown == ("tip",)
    assert [processor.progress.dead for processor in processors] == [0, 0]


def test_a_namespace_that_another_process_makes_meanwhile_is_there(
    lake: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, other = open_catalog(lake), open_catalog(lake)
    exists = catalog.namespace_exists

    def slow(name: Any) -> bool:
        found = bool(exists(name))
        other.create_namespace_if_not_exists(name)
        return found

    monkeypatch.setattr(catalog, "namespace_exists", slow)
    assert ensure_table(catalog, spec_of(OLD)).name() == ("events", "payments")
