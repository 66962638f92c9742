from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from headway.core.errors import InvalidValue, Malformed
from headway.core.types import Columns
from headway.features.definitions import Entity, FeatureService, WindowView
from headway.serving.inference import InferenceProtocol
from headway.serving.protocol import DecisionDecoder
from headway.serving.recorder import decision_log_schema
from headway.serving.schema import DecisionSchema
from tests.serving.helpers import sales, service, shops

at_shop = WindowView(
    name="at_shop",
    entity=Entity(name="customer_at_shop", key=("customer_id", "shop"), dtype=("int64", "string")),
    source=sales,
    max_events=10,
    aggregates=shops.aggregates,
)
wide = FeatureService(
    name="wide_v1",
    views=(*service.views, at_shop, shops.aliased("home", key={"shop": "home_shop"})),
    request={"amount": "float32"},
)
COLUMNS = (("customer_id", "int64"), ("shop", "string"), ("home_shop", "string"), ("amount", "float32"))


def test_a_request_carries_each_key_column_once() -> None:
    schema = DecisionSchema.of(wide)
    assert schema.columns == COLUMNS
    rows: Columns = schema.arrays([(1, "a", "b", 2.5, None)])
    assert rows["home_shop"].tolist() == ["b"]
    assert rows["customer_id"].dtype == np.int64
    names = decision_log_schema(wide).names
    assert [names.count(name) for name in ("customer_id", "shop", "home_shop", "home__count_7d")] == [1] * 4


def test_both_protocols_name_the_column_of_an_alias() -> None:
    row = {"customer_id": 1, "shop": "a", "home_shop": "b", "amount": 2}
    plain = DecisionDecoder(DecisionSchema.of(wide))
    assert plain.decode(json.dumps({"rows": [row]}).encode()).rows == [(1, "a", "b", 2.0, None)]
    with pytest.raises(InvalidValue, match="home_shop"):
        plain.decode(json.dumps({"rows": [{k: v for k, v in row.items() if k != "home_shop"}]}).encode())
    protocol = InferenceProtocol("wide", DecisionSchema.of(wide))
    assert [each["name"] for each in protocol.metadata([])["inputs"]] == [*(name for name, _ in COLUMNS), "event_time"]
    tensors = [
        {"name": name, "shape": [1, 1], "datatype": kind, "data": [row[name]]}
        for name, kind in (("customer_id", "INT64"), ("shop", "BYTES"), ("home_shop", "BYTES"), ("amount", "FP32"))
    ]
    call, _ = protocol.decode(json.dumps({"inputs": tensors}).encode())
    assert call.rows == [(1, "a", "b", 2.0, None)]
    with pytest.raises(InvalidValue, match=r"inputs\.home_shop"):
        protocol.decode(json.dumps({"inputs": [*tensors[:2], tensors[3]]}).encode())


ROW: dict[str, Any] = {"customer_id": 1, "shop": "a", "home_shop": "b", "amount": 2.0}
NAMED = DecisionSchema.of(dataclasses.replace(wide, event_id="sale", event_id_dtype="string"))


@pytest.mark.parametrize(
    ("row", "own"),
    [({}, None), ({"sale": "s:1"}, "s:1"), ({"sale": None}, None)],
)
def test_a_row_may_bring_the_clients_own_id(row: dict[str, Any], own: str | None) -> None:
    values = {**ROW, **row}
    call = DecisionDecoder(NAMED).decode(json.dumps({"rows": [values, values]}).encode())
    assert NAMED.event_ids(call.rows) == [own, own]
    assert list(NAMED.arrays(call.rows)) == list(NAMED.names)
    assert "sale" not in NAMED.names
    assert not call.replayed


def test_an_id_of_the_wrong_type_or_twice_is_refused() -> None:
    decoder = DecisionDecoder(NAMED)
    with pytest.raises(InvalidValue) as caught:
        decoder.decode(json.dumps({"rows": [{**ROW, "sale": 7}]}).encode())
    assert caught.value.field == "rows[0].sale"
    text = json.dumps({"rows": [{**ROW, "sale": "a"}]}).replace('"sale": "a"', '"sale": "a", "sale": "b"')
    with pytest.raises(Malformed, match="twice"):
        decoder.decode(text.encode())
    with pytest.raises(InvalidValue, match="unknown field"):
        DecisionDecoder(DecisionSchema.of(wide)).decode(json.dumps({"rows": [{**ROW, "sale": "a"}]}).encode())


def test_the_id_comes_as_a_tensor_too() -> None:
    protocol = InferenceProtocol("toy", NAMED)
    datatypes = {"int64": "INT64", "float32": "FP32", "string": "BYTES"}
    inputs = [
        {"name": name, "shape": [1], "datatype": datatypes[dtype], "data": [ROW[name]]} for name, dtype in NAMED.columns
    ]
    call, _ = protocol.decode(json.dumps({"inputs": inputs}).encode())
    assert NAMED.event_ids(call.rows) == [None]
    inputs.append({"name": "sale", "shape": [1], "datatype": "BYTES", "data": ["s1"]})
    call, _ = protocol.decode(json.dumps({"inputs": inputs}).encode())
    assert NAMED.event_ids(call.rows) == ["s1"]
    assert [item["name"] for item in protocol.metadata(["1"])["inputs"]] == [*NAMED.names, "sale", "event_time"]
