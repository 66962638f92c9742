from __future__ import annotations

import dataclasses
import json

from headway.core.canonical import canonical
from headway.features.aggregates import count
from headway.features.definitions import Overflow, RowView, View
from headway.features.evolution import versions, view_of
from headway.features.online_keys import watermark_key
from headway.features.windows import codec
from tests.features.oracle import CARD, SOURCE, a_view, endless_view

SOURCES = {SOURCE.name: SOURCE}
ROW = RowView(name="latest", entity=CARD, source=SOURCE, columns=("amount",), ttl=50)


def stored(view: View) -> dict[str, object]:
    described: dict[str, object] = json.loads(canonical(view.describe()))
    return described


def test_a_view_comes_back_from_its_description() -> None:
    strict = dataclasses.replace(a_view(7, retention=25), overflow=Overflow.REJECT)
    tiles = [a_view(None, retention=25, hop="7us"), dataclasses.replace(a_view(None), aggregates=count("90d"))]
    views: list[View] = [a_view(), endless_view(9), strict, *tiles, ROW]
    for view in views:
        again = view_of(stored(view), SOURCE)
        assert again.describe() == view.describe()
        if not isinstance(view, RowView):
            assert not isinstance(again, RowView)
            assert codec.prefix(again) == codec.prefix(view)
        assert watermark_key(again) == watermark_key(view)


def test_versions_in_service_stand_beside_the_current_ones() -> None:
    wider = dataclasses.replace(a_view(), aggregates=(*a_view().aggregates, *count("90us")))
    assert codec.prefix(wider) != codec.prefix(a_view())
    found = versions([wider, ROW], [stored(a_view()), stored(ROW), stored(a_view())], SOURCES)
    assert [view.describe() for view in found] == [wider.describe(), ROW.describe(), a_view().describe()]


def test_a_view_whose_source_is_gone_is_not_fed() -> None:
    assert versions([], [stored(a_view())], {}) == ()
