from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import InvalidValue
from headway.serving.tensors import from_raw, to_raw

VALUES = {
    "BOOL": st.booleans(),
    "INT8": st.integers(-(2**7), 2**7 - 1),
    "UINT32": st.integers(0, 2**32 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BYTES": st.text(max_size=20),
}


@pytest.mark.parametrize("datatype", list(VALUES))
@given(st.data())
def test_what_was_written_is_read(datatype: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES[datatype], max_size=8))
    assert (
        from_raw(datatype, memoryview(to_raw(datatype, values)), len(values), "inputs[0].data", "inputs[0].size")
        == values
    )


def test_the_layout_is_little_endian_and_texts_follow_their_length() -> None:
    assert to_raw("INT64", [1]) == b"\x01" + 7 * b"\x00"
    assert to_raw("FP32", [1.0]) == np.array([1.0], "<f4").tobytes()
    assert to_raw("BYTES", ["ä"]) == b"\x02\x00\x00\x00\xc3\xa4"


@pytest.mark.parametrize(
    ("datatype", "raw", "count", "field"),
    [
        ("INT64", b"\x00" * 7, 1, "binary_data_size"),
        ("FP32", np.array([1, np.nan], "<f4").tobytes(), 2, "data[1]"),
        ("FP64", np.array([np.inf], "<f8").tobytes(), 1, "data[0]"),
        ("BYTES", b"\x02\x00\x00\x00a", 1, "data[0]"),
        ("BYTES", b"\x01\x00\x00\x00a", 2, "data[1]"),
        ("BYTES", b"\x01\x00\x00\x00ab", 1, "binary_data_size"),
        ("BYTES", b"\x01\x00\x00\x00\xff", 1, "data[0]"),
    ],
)
def test_bytes_that_are_no_values_are_named(datatype: str, raw: bytes, count: int, field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        from_raw(datatype, memoryview(raw), count, "inputs[3].data", "inputs[3].parameters.binary_data_size")
    assert str(refused.value.field).startswith("inputs[3]")
    assert str(refused.value.field).endswith(field)


@given(st.sampled_from(list(VALUES)), st.binary(max_size=40), st.integers(0, 8))
def test_any_bytes_are_values_or_refused(datatype: str, raw: bytes, count: int) -> None:
    try:
        assert len(from_raw(datatype, memoryview(raw), count, "inputs[0].data", "inputs[0].size")) == count
    except InvalidValue as refused:
        assert str(refused.field).startswith("inputs[0]")
