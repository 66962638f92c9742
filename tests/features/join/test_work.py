from __future__ import annotations

from typing import Any

import pytest

from headway.core.clock import ManualClock
from headway.core.types import Principal
from headway.features.definitions import FeatureService
from headway.features.historical import offline_features
from headway.features.join import pieces
from headway.features.join import work as join_work
from headway.features.join.point_in_time import view_columns
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from tests.features.histories import BY_SHOP, a_spine
from tests.features.oracle import SOURCE, Event, a_view
from tests.features.samples import table

WINDOWS = FeatureService(name="windows", views=(a_view(), BY_SHOP), request={})


def test_window_views_hold_the_events_of_a_horizon_and_no_more(
    reader: LakeReader, lake: Location, clock: ManualClock, analyst: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the events are of one key."""
    hot = [Event(7, at, at + at % 3, 10_000 + at, at) for at in range(0, 3_000)]
    Committer(lake, clock).append(SOURCE, table(hot), "hot")
    spine = a_spine(400, 21)
    expected = offline_features(spine, WINDOWS, reader, analyst, "testing")
    monkeypatch.setattr(pieces, "PIECE_ROWS", 100)
    monkeypatch.setattr(join_work, "_EVENTS_PER_PASS", 400)
    held: list[int] = []

    def counted(view: Any, events: Any, *arguments: Any, **options: Any) -> Any:
        held.append(len(events.records))
        return view_columns(view, events, *arguments, **options)

    monkeypatch.setattr("headway.features.join.point_in_time.view_columns", counted)
    found = offline_features(spine, WINDOWS, reader, analyst, "testing")
    assert found.to_pandas().equals(expected.to_pandas())
    assert len(held) > 12
    assert max(held) <= 400
    assert sum(held) > 3_000
