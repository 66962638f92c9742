"""Rows of a worker: in order whatever the blocks, and the same trees."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import InvalidValue
from headway.core.types import Matrix
from headway.training.recipes.rows import Rows, Shape, pack

FEATURES = ("a", "b", "c")
SHAPE = Shape(features=FEATURES, label="label")


def table(rows: int = 500) -> pa.Table:
    generator = np.random.default_rng(1)
    columns: dict[str, Any] = {name: generator.normal(size=rows).astype(np.float32) for name in FEATURES}
    columns["b"] = pa.array([None if value < 0 else value for value in columns["b"].tolist()], pa.float32())
    label = (columns["a"] > 0.2).astype(np.int64)
    return pa.table(
        {
            **columns, "label": label, "row_id": np.arange(rows), "event_time": np.arange(rows) * 10,
            "weight": generator.random(rows).astype(np.float32),
        }
    )  # fmt: skip


def blocks(order: list[int], cuts: list[int], shape: Shape = SHAPE, **options: Any) -> list[pa.Table]:
    whole = table().take(order)
    ends = sorted({0, *cuts, len(whole)})
    return [pack(whole.slice(a, b - a), shape=shape, **options) for a, b in itertools.pairwise(ends)]


def trees(rows: Rows) -> bytes:
    params = {"objective": "binary:logistic", "subsample": 0.7, "seed": 3, "nthread": 1}
    return bytes(xgboost.train(params, rows.quantised(threads=1), 5).save_raw("json"))


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 500), max_size=5), st.integers(1, 600))
def test_batches_are_the_rows_in_order_however_they_were_cut(mixed: Random, cuts: list[int], size: int) -> None:
    order = list(range(500))
    mixed.shuffle(order)
    rows = Rows(blocks(order, cuts), SHAPE)
    got = [(matrix.copy(), where) for matrix, where in rows.batches(size)]
    whole = table()
    expected = np.stack([whole[name].to_numpy() for name in FEATURES], axis=1)
    np.testing.assert_array_equal(np.concatenate([matrix for matrix, _ in got]), expected)
    assert [where.start for _, where in got] == list(range(0, 500, size))
    np.testing.assert_array_equal(rows.labels, whole["label"].to_numpy())


def test_the_trees_do_not_depend_on_blocks() -> None:
    order = np.random.default_rng(7).permutation(500).tolist()
    assert trees(Rows(blocks(list(range(500)), []), SHAPE)) == trees(Rows(blocks(order, [100, 230]), SHAPE))


def test_parts_and_the_cut_share_out_every_row_once() -> None:
    shape = Shape(features=FEATURES, label="label", cut=4_000)
    found = [
        Rows(blocks(list(range(500)), [70], shape, validation=late, part=part, of=3), shape)
        for late in (False, True)
        for part in range(3)
    ]
    assert [len(rows) for rows in found] == [134, 133, 133, 33, 34, 33]
    assert sum(len(rows) for rows in found) == 500
    whole = table()["a"].to_numpy()
    np.testing.assert_array_equal(found[1].matrix()[:, 0], whole[1:400:3])
    np.testing.assert_array_equal(found[5].matrix()[:, 0], whole[401:500:3])


def test_weights_are_those_of_row_and_class() -> None:
    shape = Shape(features=FEATURES, label="label", weight="weight", class_weights={1: 3.0, 0: 0.5})
    rows = Rows(blocks(list(range(500)), [10], shape), shape)
    whole = table()
    factor = np.where(whole["label"].to_numpy() == 1, 3.0, 0.5)
    np.testing.assert_allclose(rows.weights, whole["weight"].to_numpy() * factor, rtol=1e-6)
    plain = Rows(blocks(list(range(500)), [10]), SHAPE)
    assert trees(rows) != trees(plain)


@pytest.mark.parametrize(
    ("column", "value"), [("weight", -1.0), ("weight", float("inf")), ("weight", None), ("label", None)]
)
def test_a_weight_or_label_that_is_none_is_named(column: str, value: float | None) -> None:
    shape = Shape(features=FEATURES, label="label", weight="weight")
    whole = table()
    values: list[Any] = [*whole[column].to_pylist()[:-1], value]
    broken = whole.set_column(whole.schema.get_field_index(column), column, pa.array(values))
    with pytest.raises(InvalidValue, match=f"{column}: holds"):
        Rows([pack(broken, shape=shape)], shape)


def test_a_batch_is_all_that_is_copied() -> None:
    packed: Matrix = blocks(list(range(500)), [])[0]["matrix"].chunk(0).flatten().to_numpy(zero_copy_only=True)
    kept = Rows(blocks(list(range(500)), []), SHAPE)._blocks[0].matrix
    assert kept.base is not None
    assert packed.size == kept.size
