from __future__ import annotations

import pytest

from headway.serving import application
from headway.serving.batching import MAX_BATCH_ROWS


def test_a_deployment_bounds_the_rows_scored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # nothing is connected before a deployment runs
    usual, small = application("fraud"), application("fraud", max_batch_rows=64, num_replicas=2)
    assert usual._bound_deployment.init_args == ("fraud", MAX_BATCH_ROWS)
    assert small._bound_deployment.init_args == ("fraud", 64)
    assert small._bound_deployment.num_replicas == 2
