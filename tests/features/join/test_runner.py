from __future__ import annotations

import pyarrow as pa
import pytest
import ray

from headway.core.types import Principal
from headway.features.historical import offline_features, training_set
from headway.features.lake.reader import LakeReader
from tests.features.histories import (
    MIXED,
    SERVICE,
    a_spine,
    same,
)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_result_does_not_depend_on_blocks(reader: LakeReader, analyst: Principal) -> None:
    spine = a_spine(500, 5)
    expected = offline_features(spine, SERVICE, reader, analyst, "testing")
    for blocks in (1, 7, 200):
        found = training_set(spine, SERVICE, reader, analyst, "testing", blocks=blocks).to_pandas()
        again = pa.Table.from_pandas(found.sort_values("row_id"), preserve_index=False)
        same(again.select(expected.column_names).cast(expected.schema), expected)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_tasks_exchange_what_is_bucketed_by_another_key(mixed_reader: LakeReader, analyst: Principal) -> None:
    spine = a_spine(300, 14)
    expected = offline_features(spine, MIXED, mixed_reader, analyst, "testing")
    for blocks, rows_per_task in ((1, 10_000), (3, 50)):
        dataset = training_set(
            spine, MIXED, mixed_reader, analyst, "testing", blocks=blocks, rows_per_task=rows_per_task
        )
        found = pa.concat_tables(ray.get(dataset.to_arrow_refs())).sort_by("row_id")
        assert found.select(expected.column_names).to_pandas().equals(expected.to_pandas())
