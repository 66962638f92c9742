"""The choice of a back end."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import SystemClock
from headway.core.errors import InvalidValue, Tampered
from headway.core.types import Matrix
from headway.models.backends import open_backend
from headway.models.input_schema import CATEGORIES, InputSchema, describe_column, describe_input, merge_schemas
from headway.models.parity import compare
from headway.models.warmup import make_warmup
from tests.models.conftest import Made


class Shifted:
    """A back end that is fast and off by `error`."""

    def __init__(self, name: str, error: float) -> None:
        self.name = name
        self._error = error

    def predict(self, matrix: Matrix) -> Matrix:
        return np.full(len(matrix), 0.25 + self._error, dtype=np.float32)


def test_a_fast_back_end_with_other_outputs_is_not_chosen(made: Made) -> None:
    reference = open_backend("xgboost", (made.folder / "model.json").read_bytes())
    reports = compare(reference, (Shifted("fast", 0.1),), made.matrix[:50], SystemClock())
    assert [report.name for report in reports] == ["xgboost", "fast"]
    assert not reports[1].equal
    assert reports[1].cost < reports[0].cost


@pytest.mark.parametrize(("error", "equal"), [(0.0, True), (2e-6, False), (float("nan"), False)])
def test_equality_has_a_bound_and_nan_is_never_equal(error: float, equal: bool) -> None:
    matrix = np.zeros((5, 2), np.float32)
    reports = compare(Shifted("reference", 0.0), (Shifted("other", error),), matrix, SystemClock())
    assert {report.name: report.equal for report in reports}["other"] is equal


def test_the_warm_up_keeps_values_exactly_and_holds_an_all_missing_row(made: Made) -> None:
    warmup = make_warmup(("a", "b", "c", "d"), made.matrix, Shifted("any", 0.0))
    rows = warmup.matrix()
    assert len(rows) == 64
    assert np.isnan(rows[-1]).all()
    step = np.linspace(0, len(made.matrix) - 1, num=63).astype(int)
    np.testing.assert_array_equal(rows[:-1], made.matrix[step])


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_a_warm_up_with_another_engine_names_the_row(error: float) -> None:
    warmup = make_warmup(("a",), np.zeros((3, 1), np.float32), Shifted("first", 0.0))
    assert warmup.check(Shifted("same", 0.0)) == 0
    with pytest.raises(Tampered, match="warm-up row 0"):
        warmup.check(Shifted("other", error))


def test_the_input_schema_describes_what_was_seen() -> None:
    matrix = np.array([[1.0, np.nan], [3.0, np.nan]], np.float32)
    first, second = describe_input(("a", "b"), matrix).features
    assert (first.minimum, first.maximum, first.nulls) == (1.0, 3.0, False)
    assert (second.minimum, second.maximum, second.nulls) == (None, None, True)
    with pytest.raises(InvalidValue, match="b: holds an infinite value"):
        describe_input(("a", "b"), np.array([[1.0, np.inf]], np.float32))
    with pytest.raises(InvalidValue, match="matrix"):
        describe_input(("a",), matrix)


texts = st.lists(st.none() | st.sampled_from(["a", "b", "c"]), min_size=1, max_size=10)


@settings(deadline=None)
@given(texts, texts)
def test_what_is_seen_in_parts_is_what_is_seen_in_all(first: list[str | None], second: list[str | None]) -> None:
    def described(values: list[str | None]) -> InputSchema:
        lengths = [None if value is None else ord(value) for value in values]
        return InputSchema(
            features=(),
            request=(
                describe_column("channel", "string", pa.chunked_array([pa.array(values, pa.string())])),
                describe_column("pieces", "int64", pa.chunked_array([pa.array(lengths, pa.int64())])),
            ),
        )

    assert merge_schemas(described(first), described(second)) == described(first + second)


def test_many_texts_are_no_categories() -> None:
    names = [str(number) for number in range(CATEGORIES + 1)]
    halves = [describe_column("name", "string", pa.chunked_array([part])) for part in (names[:600], names[600:])]
    merged = merge_schemas(*(InputSchema(features=(), request=(half,)) for half in halves))
    assert [half.categories is None for half in (*halves, *merged.request)] == [False, False, True]
