from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pytest

from headway.core.errors import Unavailable
from headway.core.times import DAY, HOUR, MINUTE
from headway.features.aggregates import count
from headway.features.definitions import WindowView
from headway.features.online_store import OnlineStore
from headway.features.status import SLACK
from headway.features.streams.parts import Progress
from headway.features.streams.state import length, measure
from headway.features.streams.status import Budget, PartitionStatus, StateSize, alarms
from tests.features.oracle import CARD, SOURCE, Event
from tests.features.samples import table

NOW = 1_000 * DAY


def status(**changed: Any) -> PartitionStatus:
    given: dict[str, Any] = {"end": 100, "state": "running", "error": "", "failing_since": 0}
    about = {key: changed.pop(key) for key in list(changed) if key in given}
    progress: dict[str, Any] = {
        "partition": 3, "epoch": 1, "position": 100, "checkpoint": 90, "watermark": NOW, "pending_rows": 10,
        "pending_bytes": 800, "rows": 1_000, "dead": 0, "lost": 0, "unknown": (), **changed,
    }  # fmt: skip
    return PartitionStatus(progress=Progress(**progress), **(given | about))


def test_all_is_well() -> None:
    size = StateSize(view="v", keys=1, bytes=1, overdue=0)
    assert alarms([status(), status(end=-1)], [size], Budget(), NOW) == []
    assert status(end=-1).lag == 0


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"end": 101 + 100_000}, "100,001 messages wait"),
        ({"watermark": NOW - 2 * MINUTE}, "complete up to 2m ago"),
        ({"failing_since": NOW - HOUR, "error": "why"}, "no step succeeds: why"),
        ({"dead": 11}, "11 dead letters"),
        ({"lost": 1}, "1 messages were dropped"),
        ({"unknown": ("color",)}, "unknown fields: color"),
    ],
)
def test_a_budget_that_is_exceeded_alarms(changed: dict[str, Any], text: str) -> None:
    (line,) = alarms([status(), status(**changed)], [], Budget(), NOW)
    assert line.startswith("partition 3: ")
    assert text in line


@pytest.mark.parametrize("kind", [{"hop": "1h"}, {"max_events": 500}])
def test_state_is_measured_and_alarms(online_url: str, kind: dict[str, Any]) -> None:
    view = WindowView(name="v", entity=CARD, source=SOURCE, aggregates=count("1d"), **kind)
    store, budget = OnlineStore(online_url), Budget(state_bytes=1_000)
    assert measure(online_url, view, budget, NOW) == StateSize(view="v", keys=0, bytes=0, overdue=0)
    reach = (view.horizon or 0) + SLACK + budget.key_age
    rows = table([Event(key, NOW - reach + (key - 4), NOW - reach, key, 1) for key in range(10)])
    store.write(view, rows)
    store.write(view, pa.concat_tables([table([Event(7, NOW, NOW, 100 + i, 1) for i in range(300)])]))
    assert measure(online_url, view, budget, NOW).overdue == 0  # the server will delete them
    for name in store._client.keys("headway:f:v@*"):
        store._client.persist(name)
    size = measure(online_url, view, budget, NOW)
    assert (size.keys, size.overdue) == (10, 4)
    stored = store._client.mget(store._client.keys("headway:f:v@*"))
    assert size.bytes > sum(map(len, stored))
    assert length(online_url, view, threading.Event()) == size.bytes
    lines = alarms([], [size], budget, NOW)
    assert ["bytes online" in lines[0], "4 keys have outlived" in lines[1]] == [True, True]


def test_a_store_that_is_away_is_unavailable(tmp_path: Any) -> None:
    view = WindowView(name="v", entity=CARD, source=SOURCE, aggregates=count("1d"), hop="1h")
    with pytest.raises(Unavailable):
        measure(f"unix://{tmp_path}/s", view, Budget(), NOW)
