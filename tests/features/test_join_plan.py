from __future__ import annotations

from dataclasses import replace

import pytest

from headway.core.types import Principal
from headway.features.historical import offline_features
from headway.features.reader import LakeReader
from tests.features.histories import (
    MIXED,
    a_spine,
)
from tests.features.oracle import endless_view


@pytest.mark.parametrize("rows_per_task", [7, 100])
def test_a_hot_bucket_cut_by_time_gives_the_same(
    mixed_reader: LakeReader, analyst: Principal, rows_per_task: int
) -> None:
    spine = a_spine(300, 13)
    service = replace(MIXED, views=(*MIXED.views, endless_view(30)), features=())
    expected = offline_features(spine, service, mixed_reader, analyst, "testing")
    found = offline_features(spine, service, mixed_reader, analyst, "testing", rows_per_task=rows_per_task)
    assert found.equals(expected) or found.to_pandas().equals(expected.to_pandas())
