"""Sensitivity tags follow the data from a source's columns to whatever is made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import DefinitionError
from headway.core.types import Columns
from headway.features.aggregates import count, distinct, mean
from headway.features.definitions import Entity, EventSource, FeatureService, RowView, WindowView
from headway.features.sensitivity import feature_tags, key_tags, service_tags, view_tags
from headway.features.transformations import transformation

NAMES = ("card", "shop", "amount", "device")
SOURCE = EventSource(
    name="payments",
    columns={"payment": "int64", **dict.fromkeys(NAMES, "int64")},
    id="payment",
    bucket_by="card",
)


def tagged(**tags: Any) -> EventSource:
    return replace(SOURCE, tags=tags)


def service_of(source: EventSource, **tags: Any) -> FeatureService:
    card, shop = Entity(name="card", key="card"), Entity(name="shop", key="shop")
    view = WindowView(
        name="v", entity=card, source=source, aggregates=(*count("7d"), *mean("amount", "7d"), *distinct("device"))
    )
    row = RowView(name="r", entity=shop, source=source, columns=("device", "amount"))

    @transformation(inputs=("v__amount_mean_7d", "asked"), outputs=("once",))
    def first(columns: Columns) -> Columns:
        return {"once": columns["asked"]}

    @transformation(inputs=("once", "event_time"), outputs=("twice",))
    def second(columns: Columns) -> Columns:
        return {"twice": columns["once"]}

    return FeatureService(
        name="s",
        views=(view, row, row.aliased("home", key={"shop": "home_shop"})),
        request={"asked": "float32"},
        transformations=(first, second),
        tags=tags,
    )


def test_tags_reach_views_features_aliases_and_what_is_made_of_them() -> None:
    service = service_of(tagged(card=("pii",), shop=("place",), device=("pii", "security")), asked=("secret",))
    view, row, _ = service.views
    assert feature_tags(view) == {"v__count_7d": (), "v__amount_mean_7d": (), "v__device_distinct": ("pii", "security")}
    assert key_tags(row.aliased("home", key={"shop": "home_shop"}) if isinstance(row, RowView) else row) == {
        "home_shop": ("place",)
    }
    assert view_tags(view.stored) == ("pii", "security")
    assert view_tags(row.stored) == ("pii", "place", "security")
    found = service_tags(service)
    assert found["card"] == ("pii",)
    assert found["home_shop"] == found["shop"] == ("place",)
    assert found["home__device"] == ("pii", "security")
    assert found["asked"] == found["once"] == found["twice"] == ("secret",)
    assert found["v__count_7d"] == found["r__amount"] == ()


@given(st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from("abc"), max_size=2).map(tuple)))
def test_no_tag_is_lost_and_none_invented(tags: dict[str, tuple[str, ...]]) -> None:
    found = service_tags(service_of(tagged(**tags)))
    assert {tag for own in found.values() for tag in own} == {tag for own in tags.values() for tag in own}
    more = service_tags(service_of(tagged(**{name: (*tags.get(name, ()), "z") for name in NAMES})))
    assert all(set(found[name]) <= set(more[name]) for name in found), "another tag takes none away"


def test_a_tag_is_no_part_of_the_hash() -> None:
    assert service_of(tagged(card=("pii",)), asked=("x",)).sha256() == service_of(SOURCE).sha256()


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"crad": ("pii",)}, r"payments\.tags: no column 'crad'; did you mean 'card'"),
        ({"card": "pii"}, r"payments\.tags\.card: 'pii' is one text, not several tags; expected \(\"pii\",\)"),
        ({"card": ("PII",)}, r"payments\.tags\.card: 'PII' is no tag"),
        ({"card": ("",)}, "'' is no tag"),
    ],
)
def test_what_is_no_tag_or_no_column_is_named(tags: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        tagged(**tags)


def test_a_service_tags_its_own_request_columns_only() -> None:
    with pytest.raises(DefinitionError, match=r"s\.tags: no column 'card'"):
        service_of(SOURCE, card=("pii",))
