"""The training rows with their sources, from blocks in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from headway.features.historical import ROW_ID
from headway.training.dataset import EVALUATE, SPLIT, TRAIN
from headway.training.definitions import LabelSource
from headway.training.gates.poisoning import labelled_rows
from tests.training import world


def test_training_rows_come_in_order_with_source_and_cluster() -> None:
    rows = 40
    columns = {name: np.arange(rows, dtype=np.float32) for name in world.shop_v1.features}
    table = pa.table(
        {
            **columns,
            "returned": np.arange(rows) % 2,
            "customer_id": np.arange(rows) % 5,
            ROW_ID: np.arange(rows),
            SPLIT: np.where(np.arange(rows) < 30, TRAIN, EVALUATE),
        }
    )
    blocks = [table.slice(20), table.slice(0, 20)]
    source = LabelSource(column="customer_id", buckets=3)
    found = labelled_rows(blocks, replace(world.job, sources=source))
    assert found is not None
    assert found.matrix[:, 0].tolist() == list(range(30))
    assert found.label.tolist() == [row % 2 for row in range(30)]
    assert found.cluster is not None
    assert found.cluster.tolist() == [row % 5 for row in range(30)]
    assert found.source.tolist() == source.names(np.arange(30) % 5).tolist()
    assert labelled_rows(blocks, world.job) is None
