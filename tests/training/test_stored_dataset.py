"""The hash of a data set knows every value and no blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import PlatformError
from headway.training.stored_dataset import dataset_sha256

ROW = st.tuples(
    st.one_of(st.none(), st.floats(width=32, allow_nan=False), st.just(-0.0)),
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    st.one_of(st.none(), st.text(max_size=5)),
    st.one_of(st.none(), st.booleans()),
)
Row = tuple[float | None, int | None, str | None, bool | None]


def table(rows: Sequence[Row], first: int = 0) -> pa.Table:
    columns: list[list[object]] = [[row[index] for row in rows] for index in range(4)]
    kinds = (pa.float32(), pa.int64(), pa.string(), pa.bool_())
    arrays = [pa.array(column, kind, from_pandas=False) for column, kind in zip(columns, kinds, strict=True)]
    ids = pa.array(range(first, first + len(rows)), pa.int64())
    return pa.table([*arrays, ids], names=["amount", "key", "text", "flag", "row_id"])


@given(rows=st.lists(ROW, min_size=1, max_size=12), data=st.data())
def test_any_cut_has_the_same_hash(rows: list[Row], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=4)) | {0, len(rows)})
    blocks = [table(rows[start:end], start) for start, end in pairwise(cuts)]
    assert dataset_sha256(blocks) == dataset_sha256([table(rows)])


@given(rows=st.lists(ROW, min_size=1, max_size=6), data=st.data())
def test_another_value_has_another_hash(rows: list[Row], data: st.DataObject) -> None:
    place, other = data.draw(st.integers(0, len(rows) - 1)), data.draw(ROW)
    changed = [*rows[:place], other, *rows[place + 1 :]]
    differs = repr(changed) != repr(rows)  # tells 0.0 from -0.0
    assert (dataset_sha256([table(changed)]) != dataset_sha256([table(rows)])) == differs


def test_a_null_is_no_zero_and_a_type_is_part_of_it() -> None:
    def of(*values: float | None, kind: pa.DataType) -> str:
        return dataset_sha256([pa.table({"x": pa.array(values, kind), "row_id": pa.array(range(len(values)))})])

    assert len({of(0.0, kind=pa.float32()), of(None, kind=pa.float32()), of(0.0, kind=pa.float64())}) == 3


def test_rows_out_of_order_are_refused() -> None:
    row: Row = (1.0, 1, "a", True)
    with pytest.raises(PlatformError, match="in no order"):
        dataset_sha256([table([row], 1), table([row], 0)])
    with pytest.raises(PlatformError, match="in no order"):
        dataset_sha256([table([row, row], 0), table([row], 1)])
