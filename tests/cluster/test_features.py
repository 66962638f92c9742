from __future__ import annotations

import pyarrow as pa
import pytest

from headway.cluster.features import with_features


@pytest.mark.parametrize(
    ("degraded", "arm", "kept"),
    [
        ("", "champion", True),
        ("missing:credit_ceiling", "champion", True),
        ("input:ceiling_eur", "champion", True),
        ("input:ceiling", "previous", True),
        ("missing:stale:x", "champion", True),
        ("recomputed:activity,missing:cards", "champion", True),
        ("ceiling", "champion", False),
        ("input:amount,ceiling", "champion", False),
        ("ceiling,input:amount", "champion", False),
        ("stale:activity", "champion", False),
        ("input:amount,stale:activity", "champion", False),
        ("features:activity,features:cards", "champion", False),
        ("", "rules", False),
    ],
)
def test_only_decisions_without_the_features_of_their_moment_are_left_out(degraded: str, arm: str, kept: bool) -> None:
    log = pa.table({"degraded": [degraded], "arm": [arm]})
    assert with_features(log).num_rows == kept
