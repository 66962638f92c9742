from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.core.canonical import canonical
from headway.core.clock import ManualClock
from headway.core.errors import DefinitionError, InvalidValue
from headway.core.types import Columns, Principal
from headway.features.aggregates import count
from headway.features.consistency import CONSISTENT, SKEWED, check
from headway.features.definitions import Entity, FeatureService, RowView, WindowView
from headway.features.evolution import versions, view_of
from headway.features.historical import offline_features, training_set
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.materialize import materialize
from headway.features.online import OnlineReader, OnlineRows
from headway.features.online_keys import watermark_key
from headway.features.online_store import OnlineStore
from headway.features.status import Status
from headway.governance.audit_event import MemoryAudit
from tests.features.keyed import PARTS, Visit, expected, service_of, visits, visits_table
from tests.features.oracle import CARD, SOURCE, a_view

SERVICE = service_of("user")
STORED = ["at_place", "by_user", "facts", "tiled", "person"]
BUCKETS = ("user", "shop", "visit")
"""The source is bucketed by the first column of the key, by the second, and by neither."""
keys = st.one_of(st.none(), st.sampled_from(PARTS))
spines = st.lists(st.tuples(keys, keys, keys, keys, st.integers(-5, 250)), max_size=30)


def a_spine(rows: list[tuple[str | None, str | None, str | None, str | None, int]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * 5
    named = zip(("user", "shop", "home_shop", "payee"), columns, strict=False)
    return pa.table({**{name: pa.array(column, pa.string()) for name, column in named}, "event_time": columns[4]}).cast(
        pa.schema(
            [(name, pa.string()) for name in ("user", "shop", "home_shop", "payee")] + [("event_time", pa.int64())]
        )
    )


def a_past(n: int, seed: int) -> list[Visit]:
    rng = np.random.default_rng(seed)
    some: list[str | None] = [None, *PARTS]
    at, late = rng.integers(0, 200, n), rng.integers(0, 40, n)
    users, shops, amounts = rng.integers(0, 8, n), rng.integers(0, 8, n), rng.integers(-99, 99, n)
    return [
        Visit(some[users[i]], some[shops[i]], int(at[i]), int(at[i] + late[i]), i, int(amounts[i])) for i in range(n)
    ]


PAST = a_past(400, 3)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LakeReader]:
    found, clock = {}, ManualClock(1_000)
    for bucket_by in BUCKETS:
        folder = tmp_path_factory.mktemp(bucket_by)
        lake = Location(catalog_uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
        source = service_of(bucket_by).stored[0].source
        rows = visits_table(PAST)
        Committer(lake, clock).append_many(source, [(rows.slice(0, 150), "a"), (rows.slice(150), "b")])
        found[bucket_by] = LakeReader(lake, MemoryAudit(clock), clock)
    return found


def agrees(found: Mapping[str, Any], spine: list[dict[str, Any]], history: list[Visit]) -> None:
    for view in SERVICE.views:
        wanted = [expected(view, history, row) for row in spine]
        for place, name in enumerate(view.features):
            want = [row[place] for row in wanted]
            if isinstance(view.stored, WindowView):
                assert np.asarray(found[name]).tobytes() == np.array(want, np.float32).tobytes(), name
            else:
                values = [None if v is None or v != v else v for v in found[name].tolist()]
                assert values == want, name


def columns_of(table: pa.Table) -> dict[str, Any]:
    return {name: table[name].to_numpy() for name in table.column_names}


@given(spines, st.sampled_from(BUCKETS), st.sampled_from([3, 1_000]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_joins_by_several_columns_and_under_aliases_are_the_oracles(
    readers: dict[str, LakeReader], analyst: Principal, rows: list[Any], bucket_by: str, rows_per_task: int
) -> None:
    spine = a_spine(rows)
    found = offline_features(
        spine, service_of(bucket_by), readers[bucket_by], analyst, "testing", rows_per_task=rows_per_task
    )
    assert found.column_names == [*spine.column_names, "row_id", *SERVICE.features]
    agrees(columns_of(found), spine.to_pylist(), PAST)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("bucket_by", BUCKETS)
def test_tasks_join_alike(readers: dict[str, LakeReader], analyst: Principal, bucket_by: str) -> None:
    rng = np.random.default_rng(8)
    some: list[str | None] = [None, *PARTS]
    picked = [
        (*(some[i] for i in row), int(t)) for row, t in zip(rng.integers(0, 8, (200, 4)), range(200), strict=True)
    ]
    dataset = training_set(a_spine(picked), service_of(bucket_by), readers[bucket_by], analyst, "testing", blocks=3)
    found = pa.concat_tables(ray.get(dataset.to_arrow_refs())).sort_by("row_id")
    agrees(columns_of(found), a_spine(picked).to_pylist(), PAST)


def read(url: str, spine: list[dict[str, Any]], service: FeatureService = SERVICE) -> OnlineRows:
    given: Columns = {name: np.array([row[name] for row in spine], object) for name in service.keys}

    async def go() -> OnlineRows:
        reader = OnlineReader(service, url)
        try:
            return await reader.read(given, np.array([row["event_time"] for row in spine], np.int64))
        finally:
            await reader.close()

    return asyncio.run(go())


def emptied(url: str) -> Any:
    client = redis.Redis.from_url(url)
    client.flushall()
    return client


@given(visits(), st.lists(st.tuples(keys, keys, keys, keys, st.integers(180, 250)), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_online_reads_are_the_oracles_too(redis_url: str, history: list[Visit], rows: list[Any]) -> None:
    emptied(redis_url).close()
    store = OnlineStore(redis_url)
    for view in SERVICE.stored:
        store.write(view, visits_table(history))
    store.close()
    spine = a_spine(rows).to_pylist()
    found = read(redis_url, spine)
    assert list(found.status) == [view.name for view in SERVICE.views]
    agrees(found.columns, spine, history)
    for joined in SERVICE.views:
        for row, status in zip(spine, found.status[joined.name].tolist(), strict=True):
            if None in [row[name] for name in joined.keys]:
                assert status == Status.MISSING


def test_an_alias_stores_nothing_and_has_the_watermark_of_its_view(
    readers: dict[str, LakeReader], analyst: Principal, online_url: str
) -> None:
    store, client = OnlineStore(online_url), redis.Redis.from_url(online_url)
    reports = materialize(SERVICE.stored, readers["user"], store, analyst, "testing", known_by=150)
    assert [version.split("@")[0] for version in reports] == STORED
    prefixes = {
        name.split(b":")[1] + b":" + name.split(b":")[2].split(b"@")[0] for name in client.scan_iter("headway:*")
    }
    assert prefixes == {
        *(b"f:at_place", b"f:by_user", b"f:tiled", b"r:place", b"r:user"),
        *(f"w:{name}".encode() for name in STORED),
    }
    found = read(online_url, [{"user": "1", "shop": "1", "home_shop": "1", "payee": "1", "event_time": 150}])
    assert found.watermark == dict.fromkeys(STORED, 150)
    for ours, other in (("at_place", "home"), ("facts", "home_facts"), ("facts", "payee"), ("by_user", "payees")):
        for name in [name for name in found.columns if name.startswith(f"{ours}__")]:
            alias = other + name.removeprefix(ours)
            assert found.columns[alias].tobytes() == found.columns[name].tobytes()


def test_what_was_served_under_aliases_is_consistent_and_a_swap_is_found(
    readers: dict[str, LakeReader], analyst: Principal, online_url: str
) -> None:
    store = OnlineStore(online_url)
    materialize(SERVICE.stored, readers["shop"], store, analyst, "testing", known_by=205)
    rng = np.random.default_rng(5)
    some: list[str | None] = [None, *PARTS]
    spine = a_spine([(*(some[i] for i in row), 205) for row in rng.integers(0, 8, (300, 4))])
    online = read(online_url, spine.to_pylist())
    served = {name: np.asarray(online.columns[name], np.float32) for name in SERVICE.features}
    log = pa.table({**{name: spine[name] for name in spine.column_names}, **served})
    report = check(service_of("shop"), log, readers["shop"], analyst, "testing")
    assert (report.reads, report.verdict) == (300, CONSISTENT)
    swapped = {**served, "home__count_40us": served["at_place__count_40us"]}
    swapped["home__amount_sum_90us"] = served["at_place__amount_sum_90us"]
    log = pa.table({**{name: spine[name] for name in spine.column_names}, **swapped})
    report = check(service_of("shop"), log, readers["shop"], analyst, "testing")
    assert report.verdict == SKEWED
    assert {each.feature for each in report.differing} <= {"home__count_40us", "home__amount_sum_90us"}
    assert report.differing[0].worst is not None
    assert set(report.differing[0].worst.keys) == {"user", "shop", "home_shop", "payee"}


def test_a_key_column_of_an_alias_is_named_where_it_is_missing(
    readers: dict[str, LakeReader], analyst: Principal, online_url: str
) -> None:
    with pytest.raises(InvalidValue, match="home_shop"):
        offline_features(a_spine([]).drop_columns(["home_shop"]), SERVICE, readers["user"], analyst, "testing")

    async def go() -> None:
        reader = OnlineReader(SERVICE, online_url)
        with pytest.raises(InvalidValue, match="home_shop"):
            await reader.read({name: np.array(["1"], object) for name in ("user", "shop", "payee")}, np.array([1]))
        await reader.close()

    asyncio.run(go())


def test_a_service_names_its_columns_once() -> None:
    assert SERVICE.keys == ("user", "shop", "home_shop", "payee")
    assert [view.name for view in SERVICE.stored] == STORED
    assert [entity.name for entity in SERVICE.entities] == ["place", "user"]
    described = json.loads(canonical(SERVICE.describe()))
    assert [view["name"] for view in described["views"]] == STORED
    assert {"name": "home", "view": "at_place", "key": ["user", "home_shop"]} in described["joins"]
    assert "joins" not in FeatureService(name="s", views=(a_view(),), request={}).describe()
    wanted = ("home__count_40us",)
    alone, beside = (
        FeatureService(name="s", views=views, request={}, features=wanted)
        for views in ((SERVICE.views[5],), (SERVICE.views[0], SERVICE.views[5]))
    )
    assert (alone.keys, beside.keys) == (("user", "home_shop"), ("user", "shop", "home_shop"))
    assert alone.describe()["views"] == beside.describe()["views"]
    assert alone.sha256() != beside.sha256()


def test_views_of_composite_keys_come_back_from_their_description() -> None:
    described = json.loads(canonical(SERVICE.describe()))["views"]
    source = SERVICE.stored[0].source
    for view, text in zip(SERVICE.stored, described, strict=True):
        again = view_of(text, source)
        assert again.describe() == view.describe()
        assert watermark_key(again) == watermark_key(view)
    assert versions(SERVICE.stored, described, {source.name: source}) == SERVICE.stored


ACTIVITY = a_view()
LATEST = RowView(name="latest", entity=CARD, source=SOURCE, columns=("amount",))
OTHER = dataclasses.replace(a_view(), aggregates=count("5us"))
TEXT = dataclasses.replace(LATEST, source=dataclasses.replace(SOURCE, columns={**SOURCE.columns, "card": "string"}),
                           entity=Entity(name="text", key="card", dtype="string"), name="text")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("home", {"terminal": "home"}, r"home\.key: 'terminal' is no key column of activity; expected one of card"),
        ("home", {}, r"home\.key: activity itself is joined by card"),
        ("home", {"card": "card"}, r"home\.key: activity itself is joined by card"),
        ("activity", {"card": "other"}, "another name than the view's"),
    ],
)
def test_an_alias_is_another_name_by_other_columns(name: str, key: dict[str, str], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        ACTIVITY.aliased(name, key=key)


def test_an_alias_names_each_column_once() -> None:
    with pytest.raises(DefinitionError, match=r"home\.key: user comes twice"):
        SERVICE.stored[0].aliased("home", key={"shop": "user"})


HOME = ACTIVITY.aliased("home", key={"card": "home_card"})


@pytest.mark.parametrize(
    ("views", "request_columns", "said"),
    [
        ((ACTIVITY, HOME, HOME), {}, "produced twice: home__"),
        ((HOME, LATEST.aliased("home", key={"card": "home_card"})), {}, "two views of the name 'home'"),
        ((HOME, ACTIVITY.aliased("house", key={"card": "home_card"})), {}, "are one view joined by the same columns"),
        ((ACTIVITY, LATEST.aliased("activity", key={"card": "other"})), {}, "two views of the name 'activity'"),
        ((HOME, LATEST.aliased("activity", key={"card": "other"})), {}, "two views of the name 'activity'"),
        ((ACTIVITY, OTHER.aliased("home", key={"card": "home_card"})), {}, "two views of the name 'home'"),
        ((HOME,), {"home_card": "float32"}, "'home_card', which is another column"),
        ((ACTIVITY.aliased("home", key={"card": "event_time"}),), {}, "'event_time', which is another column"),
        ((HOME, TEXT.aliased("text_home", key={"card": "home_card"})), {}, "'home_card' is int64, and string for"),
    ],
)
def test_what_cannot_stand_beside_each_other_is_refused(
    views: tuple[Any, ...], request_columns: dict[str, str], said: str
) -> None:
    with pytest.raises(DefinitionError, match=said):
        FeatureService(name="s", views=views, request=request_columns)
