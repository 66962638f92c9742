from __future__ import annotations

from dataclasses import replace

from headway.features.aggregates import count, mean
from headway.features.catalogue.card import service_card, view_card
from headway.features.definitions import Overflow, WindowView
from headway.features.online_keys import watermark_key
from tests.features.histories import BY_CARD, SERVICE
from tests.features.keyed import service_of
from tests.features.oracle import CARD, SOURCE, a_view


def test_every_feature_has_a_type_and_a_meaning() -> None:
    for service in (SERVICE, service_of("user")):
        card = service_card(service)
        assert tuple(column.name for column in card.columns) == service.features
        assert all(column.dtype and column.meaning for column in card.columns)
        assert [view.name for view in card.views] == [view.name for view in service.stored]
    meanings = {column.name: column.meaning for column in service_card(SERVICE).columns}
    assert meanings["amount"] == "comes with the request"
    assert meanings["odd"] == "odd of amount, event_time, activity__count_40us"


def test_a_window_says_how_exact_it_is_and_what_it_counts() -> None:
    exact = view_card(a_view(1_000))
    assert exact.hop_us == 0
    assert exact.limits == "exact, at most 1,000 events per key, beyond which the oldest are dropped; 40us are kept"
    tiled = WindowView(
        name="t",
        entity=CARD,
        source=SOURCE,
        aggregates=(*count("1d"), *mean("amount", "7d", offset="2d")),
        hop="1h",
    )
    card = view_card(tiled)
    assert (card.hop_us, card.limits) == (
        3_600_000_000,
        "tiles of 1h: a window may begin up to 1h too early; 9d are kept",
    )
    assert [column.meaning for column in card.features] == [
        "number of events, 1d",
        "mean of amount, 7d, up to 2d before the decision",
    ]
    refusing = view_card(replace(a_view(5), overflow=Overflow.REJECT))
    assert "beyond which writes are refused" in refusing.limits


def test_rows_expire_and_keep_their_types() -> None:
    card = view_card(BY_CARD)
    assert card.limits == "a row expires after 400us"
    assert [column.dtype for column in card.features] == list(BY_CARD.dtypes)
    assert card.features[0].meaning == "limit of the newest row"


def test_a_card_names_the_stored_version_and_the_sources_owner() -> None:
    source = replace(SOURCE, owner="ops@example.com")
    card = view_card(replace(a_view(), source=source))
    assert f"headway:w:{card.version}".encode() == watermark_key(a_view())
    assert card.owner == "ops@example.com"


def test_aliases_are_told_in_words() -> None:
    joins = service_card(service_of("user")).joins
    assert joins[0] == "at_place"
    assert "facts" in joins
    assert "payee: facts by payee, home_shop" in joins
