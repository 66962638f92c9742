from __future__ import annotations

import numpy as np

from headway.core.clock import ManualClock
from headway.core.types import Columns, Int64
from headway.features.definitions import FeatureService
from headway.features.online import OnlineRows
from headway.serving.decision_ids import DecisionIds
from headway.serving.scoring import Scorer
from headway.serving.terms import Freshness
from headway.serving.work import Answer, Call
from tests.serving.helpers import NOW, FakeModel, MemoryRecorder, activity, run, terms

friend = FeatureService(
    name="friend_v1",
    views=(activity, activity.aliased("friend", key={"customer_id": "friend_id"})),
    request={"amount": "float32"},
)


class Reader:
    """Every count is 1; the friend of row 1 is unknown, and the view is a minute behind."""

    async def read(self, keys: Columns, at: Int64) -> OnlineRows:
        assert set(keys) == {"customer_id", "friend_id"}
        n = len(at)
        return OnlineRows(
            parts=[lambda: {name: np.ones(n, np.float32) for view in friend.views for name in view.features}],
            status={"activity": np.zeros(n, np.uint8), "friend": np.arange(n, dtype=np.uint8)},
            watermark={"activity": NOW - 60_000_000},
        )


def test_a_stale_view_is_stale_under_its_aliases_too_and_marks_name_the_join() -> None:
    recorder, clock = MemoryRecorder(), ManualClock(NOW)
    scorer = Scorer(
        service=friend,
        terms=terms(freshness=(Freshness(view="activity", max_lag=5_000_000, on_stale="null"),), ladder=()),
        reader=Reader(),
        ladder=lambda: [("champion", FakeModel())],
        rules=None,
        recorder=recorder,
        ids=DecisionIds(b"k" * 32, "friend"),
        clock=clock,
    )
    call = Call(rows=[(1, 2, 5.0, None), (1, 3, 5.0, None)], sub="a", request_id="r", deadline=1e9)
    (answer,) = run(scorer([call]))
    assert isinstance(answer, Answer)
    assert [decision.degraded for decision in answer.decisions] == [
        ["stale:activity"],
        ["missing:friend", "stale:activity"],
    ]
    (batch,) = recorder.batches
    assert np.isnan(batch.features[:, 1:]).all()
    assert batch.features[:, 0].tolist() == [5.0, 5.0]
