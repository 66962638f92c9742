from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import HeadwayError, InvalidValue, Malformed
from headway.serving.protocol import DecisionDecoder, decode_outcomes
from tests.serving.helpers import schema

DECODER = DecisionDecoder(schema)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ROW = st.fixed_dictionaries(
    {
        "customer_id": st.integers(-(2**63), 2**63 - 1),
        "shop": st.text(min_size=1, max_size=20),
        "amount": st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    }
)


@given(st.lists(ROW, min_size=1, max_size=20))
def test_good_rows_come_out_as_they_went_in(rows: list[dict[str, Any]]) -> None:
    call = DECODER.decode(json.dumps({"rows": rows}).encode())
    columns = schema.arrays(call.rows)
    assert columns["customer_id"].tolist() == [row["customer_id"] for row in rows]
    assert columns["shop"].tolist() == [row["shop"] for row in rows]
    assert columns["amount"].tolist() == [row["amount"] for row in rows]
    assert not call.replayed


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(HeadwayError):
        DECODER.decode(data)


@given(row=ROW, name=st.sampled_from(["customer_id", "shop", "amount"]), value=JSON)
def test_a_wrong_value_names_its_field(row: dict[str, Any], name: str, value: Any) -> None:
    good: Any = {"customer_id": int, "shop": str, "amount": (int, float)}[name]
    if isinstance(value, good) and not isinstance(value, bool):
        return
    with pytest.raises(InvalidValue) as caught:
        DECODER.decode(json.dumps({"rows": [row, {**row, name: value}]}).encode())
    where = f"rows[1].{name}"
    has_nan = "NaN" in json.dumps(value) or "Infinity" in json.dumps(value)
    assert caught.value.field == where or (has_nan and str(caught.value.field).startswith(where))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "3.5e38"])
def test_numbers_that_are_not_finite_float32_name_their_field(number: str) -> None:
    data = f'{{"rows":[{{"customer_id":1,"shop":"a","amount":{number}}}]}}'.encode()
    with pytest.raises(InvalidValue) as caught:
        DECODER.decode(data)
    assert caught.value.field == "rows[0].amount"


def test_a_colon_in_a_string_is_no_duplicate() -> None:
    call = DECODER.decode(b'{"rows":[{"customer_id":1,"shop":"a:b::","amount":1}]}')
    assert call.rows[0][1] == "a:b::"


@pytest.mark.parametrize(
    "data",
    [
        b'{"rows":[{"customer_id":1,"customer_id":1,"shop":"a","amount":1}]}',
        b'{"rows":[{"customer_id":1,"shop":"a","amount":1,"\\u0061mount":2}]}',
        b'{"rows":[],"rows":[{"customer_id":1,"shop":"a","amount":1}]}',
        b'{"id":"a","rows":[{"customer_id":1,"shop":"a","amount":1}],"id":"b"}',
    ],
)
def test_the_same_member_twice_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="twice"):
        DECODER.decode(data)


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    for data in (b'{"rows":' * 50_000, b'{"outcomes":[{"label":' + b"[" * 100_000):
        with pytest.raises(HeadwayError):
            DECODER.decode(data)
        with pytest.raises(HeadwayError):
            decode_outcomes(data)


def test_text_that_is_not_utf_8_is_malformed() -> None:
    for data in (b'{"id":"\xff","rows":[{"customer_id":1,"shop":"a","amount":1}]}', b'{"rows":[{"shop":"\xc3("}]}'):
        with pytest.raises(Malformed, match="UTF-8"):
            DECODER.decode(data)
    with pytest.raises(Malformed, match="UTF-8"):
        decode_outcomes(b'{"outcomes":[{"decision_id":"\xff"}]}')


def test_times_are_text_or_microseconds() -> None:
    row = {"customer_id": 1, "shop": "a", "amount": 1}
    times = ["2018-08-08T00:00:00Z", 1_533_686_400_000_000]
    call = DECODER.decode(json.dumps({"rows": [{**row, "event_time": time} for time in times]}).encode())
    assert [item[-1] for item in call.rows] == [1_533_686_400_000_000] * 2
    assert call.replayed
    with pytest.raises(InvalidValue) as caught:
        DECODER.decode(json.dumps({"rows": [{**row, "event_time": 2**70}]}).encode())
    assert caught.value.field is not None
    assert caught.value.field.startswith("rows[0].event_time")
