from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import data

from headway.core.errors import InvalidValue
from headway.features.torch_batches import arrays, parts, torch_dataset

ROWS = pa.table({"a": [1.0, None, 3.0], "b": [True, False, True], "label": [0, 1, 1], "text": ["x", "y", "z"]})


@given(rows=st.integers(0, 200), size=st.integers(1, 50), workers=st.integers(1, 5))
def test_together_the_workers_have_every_row_once(rows: int, size: int, workers: int) -> None:
    found = [row for place in range(workers) for part in parts(rows, size, place, workers) for row in range(rows)[part]]
    assert sorted(found) == list(range(rows))
    assert [part.start for part in parts(rows, size, 0, 1)] == list(range(0, rows, size))


def test_missing_features_are_nan_and_text_is_refused() -> None:
    matrix, label = arrays(ROWS, ["a", "b"], "label")
    np.testing.assert_array_equal(matrix, np.array([[1, 1], [np.nan, 0], [3, 1]], np.float32))
    assert label.tolist() == [0, 1, 1]
    with pytest.raises(InvalidValue, match="text: is no number"):
        arrays(ROWS, ["a", "text"], "label")


def test_without_torch_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *rest: Any) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("headway.features.torch_batches.importlib.import_module", absent)
    with pytest.raises(InvalidValue, match=r"torch is not installed.*pip install torch"):
        torch_dataset(ROWS, ["a"], "label", 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_reads_it(workers: int) -> None:
    found = torch_dataset(ROWS, ["a", "b"], "label", 2)
    batches = list(data.DataLoader(found, batch_size=None, num_workers=workers))
    assert [tuple(features.shape) for features, _ in batches] == [(2, 2), (1, 2)]
    assert [value for _, label in batches for value in label.tolist()] == [0.0, 1.0, 1.0]
    with pytest.raises(InvalidValue, match="batch_size"):
        torch_dataset(ROWS, ["a"], "label", 0)
