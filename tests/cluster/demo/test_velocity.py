from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from headway.cluster.demo.velocity import BURST, Velocity, burst_of, counted, grew, stranger
from headway.core.times import DAY, SECOND
from headway.features.aggregates import count, mean, since_last
from headway.features.definitions import Entity, FeatureService, WindowView
from tests.cluster.demo.conftest import START, returns, service, tables, view, visits

NOW = 1_795_000_000_000_000
SHOWN = Velocity(
    view="past", features=("past__count_7d",), decisions=("a", "b"), burst=BURST, readable_ms=40.0, pause_s=1.0
)


def test_the_counts_that_see_an_event_at_once_are_found() -> None:
    assert counted(service, visits) is None, "it keeps eight events of a key, fewer than a burst has"
    assert counted(service, returns) is None
    plain = replace(view, max_events=None)
    alone = FeatureService(name="p", views=(plain,), request={"amount": "float32"})
    assert counted(alone, visits) == (plain, ("past__count_7d",))
    mixed = replace(
        view,
        name="mixed",
        aggregates=(*count("1d", "7d"), *count("2d", offset="7d"), *count("1s"), *mean("amount", "7d"), *since_last()),
        max_events=20,
    )
    found = counted(FeatureService(name="m", views=(mixed,), request={"amount": "float32"}), visits)
    assert found == (mixed, ("mixed__count_1d", "mixed__count_7d"))
    labels = replace(view, name="labels", source=returns)
    late = FeatureService(name="l", views=(labels, mixed), request={"amount": "float32"})
    assert counted(late, visits) == (mixed, ("mixed__count_1d", "mixed__count_7d"))


def test_a_stranger_is_a_row_of_the_source_with_a_key_and_an_id_that_nobody_has() -> None:
    like = dict(tables(5))["visits"].slice(4, 1)
    row = stranger(view, like, NOW)
    assert row.schema == like.schema
    assert row.select(["guest_id", "visit_id"]).to_pylist() == [{"guest_id": NOW, "visit_id": NOW}]
    assert row.drop_columns(["guest_id", "visit_id"]) == like.drop_columns(["guest_id", "visit_id"])
    named = WindowView(
        name="named",
        entity=Entity(name="guest", key="guest_id", dtype="string"),
        source=replace(visits, columns={**visits.columns, "guest_id": "string"}),
        aggregates=count("7d"),
    )
    text = like.set_column(1, "guest_id", pa.array(["x"]))
    assert stranger(named, text, NOW)["guest_id"].to_pylist() == [f"new-{NOW}"]


def test_a_burst_is_of_one_key_ends_at_the_moment_and_has_its_own_ids() -> None:
    row = stranger(view, dict(tables(5))["visits"].slice(4, 1), NOW)
    at = START + 2 * DAY
    events = burst_of(row, visits, at=at, now=NOW + SECOND, count=4)
    assert events.schema == row.schema
    assert set(events["guest_id"].to_pylist()) == {NOW}
    assert len({*events["visit_id"].to_pylist(), NOW}) == 5
    assert events["event_time"].to_pylist() == events["known_time"].to_pylist() == [at - 3, at - 2, at - 1, at]


@pytest.mark.parametrize(("before", "after"), [(0.0, 10.0), (None, 9.0)])
def test_what_decisions_saw_is_read_from_the_log(before: float | None, after: float) -> None:
    log = pa.table({"decision_id": ["x", "b", "a"], "past__count_7d": pa.array([5.0, after, before], pa.float32())})
    assert grew(SHOWN, log) == {"past__count_7d": (0.0, after)}
    assert grew(SHOWN, log.slice(0, 2)) == {}, "a decision that is not logged shows nothing"
