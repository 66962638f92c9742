from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from headway.core.errors import Unavailable
from headway.core.types import Columns, Int64
from headway.features.online import OnlineRows
from headway.features.status import Status
from headway.serving.terms import Freshness
from tests.serving.helpers import NOW, Toy
from tests.serving.test_service import body

RECOMPUTED = tuple(Freshness(view=view, max_lag=5_000_000, on_stale="recompute") for view in ("activity", "shops"))


@dataclass
class FakeLake:
    """Features are the key plus 1,000, once it is let through."""

    failure: Exception | None = None
    gate: Event = field(default_factory=Event)
    asked: list[list[str]] = field(default_factory=list)

    def read(self, views: Sequence[str], keys: Columns, at: Int64) -> OnlineRows:
        self.asked.append(list(views))
        assert self.gate.wait(20)
        if self.failure is not None:
            raise self.failure
        ids = keys["customer_id"].astype(np.float32) + 1_000
        columns: Columns = {"activity__count_7d": ids, "activity__amount_mean_7d": ids, "shops__count_7d": ids}
        status = np.full(len(at), Status.MISSING, np.uint8)
        return OnlineRows(parts=[lambda: columns], status=dict.fromkeys(views, status), watermark={})


@pytest.fixture
def lake() -> Iterator[FakeLake]:
    lake = FakeLake()
    yield lake
    lake.gate.set()


async def decide(toy: Toy, *amounts: float) -> list[dict[str, Any]]:
    _, _, answer = await toy.http("POST", "/v1/decisions", body(*amounts))
    decisions: list[dict[str, Any]] = json.loads(answer)["decisions"]
    return decisions


def test_stale_features_are_recomputed_and_named(tmp_path: Path, lake: FakeLake) -> None:
    lake.gate.set()
    toy = Toy(tmp_path, lake=lake, freshness=RECOMPUTED[:1], deadline_s=20.0)
    toy.reader.watermark = NOW
    (decision,) = toy.call(lambda t: decide(t, 90))
    assert (decision["arm"], decision["degraded"]) == ("champion", ["recomputed:activity", "missing:activity"])
    assert lake.asked == [["activity"]]
    served = toy.recorder.batches[0].features[0].tolist()
    assert served[1] >= 1_000, "from the lake"
    assert served[3] == 1, "a view without the clause is the store's"


def test_fresh_features_are_not_recomputed(tmp_path: Path, lake: FakeLake) -> None:
    toy = Toy(tmp_path, lake=lake, freshness=RECOMPUTED, deadline_s=20.0)
    (decision,) = toy.call(lambda t: decide(t, 90))
    assert (decision["degraded"], lake.asked) == ([], [])


def test_a_lake_that_is_late_is_given_up_and_left_alone(tmp_path: Path, lake: FakeLake) -> None:
    toy = Toy(tmp_path, lake=lake, freshness=RECOMPUTED[:1], deadline_s=0.2)
    toy.reader.watermark = NOW

    async def work(t: Toy) -> list[list[str]]:
        return [(await decide(t, 90))[0]["degraded"] for _ in range(5)]

    assert toy.call(work) == [["stale:activity"]] * 5
    assert len(lake.asked) == 1, "nobody waits for a lake that was late a moment ago"
    served = toy.recorder.batches[0].features[0]
    assert np.isnan(served[1])


def test_a_lake_that_fails_leaves_the_features_missing(tmp_path: Path, lake: FakeLake) -> None:
    lake.gate.set()
    lake.failure = OSError("disk gone")
    toy = Toy(tmp_path, lake=lake, freshness=RECOMPUTED[:1], deadline_s=20.0)
    toy.reader.watermark = NOW
    (decision,) = toy.call(lambda t: decide(t, 90))
    assert (decision["arm"], decision["degraded"]) == ("champion", ["stale:activity"])


def test_while_the_store_is_away_everything_is_recomputed(tmp_path: Path, lake: FakeLake) -> None:
    lake.gate.set()
    toy = Toy(tmp_path, lake=lake, freshness=RECOMPUTED, deadline_s=20.0)
    toy.reader.failure = Unavailable("gone", retry_after_s=1)
    (decision,) = toy.call(lambda t: decide(t, 90))
    assert decision["arm"] == "champion"
    assert {"recomputed:activity", "recomputed:shops"} <= set(decision["degraded"])


def test_without_rules_the_contract_says_whether_features_may_be_missing(tmp_path: Path) -> None:
    allowed = tuple(Freshness(view=view, max_lag=5, on_stale="default") for view in ("activity", "shops"))
    toy = Toy(tmp_path, with_rules=False, freshness=allowed)
    toy.reader.failure = Unavailable("gone", retry_after_s=1)
    (decision,) = toy.call(lambda t: decide(t, 90))
    assert (decision["arm"], decision["degraded"]) == ("champion", ["features:activity", "features:shops"])
    assert np.isnan(toy.recorder.batches[0].features[0, 1:4]).all()
    strict = Toy(tmp_path / "b", with_rules=False, freshness=allowed[:1])
    strict.reader.failure = Unavailable("gone", retry_after_s=1)
    assert strict.call(lambda t: t.http("POST", "/v1/decisions", body(90)))[0] == 503
