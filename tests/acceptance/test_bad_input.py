"""Bad requests are refused with the field that is wrong, and the replica that refused them goes on."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.acceptance.platform import BODY, ROW, Platform

LIMIT = 1 << 20
INPUTS = [
    {"name": "customer_id", "shape": [1, 1], "datatype": "INT64", "data": [4]},
    {"name": "amount", "shape": [1, 1], "datatype": "FP32", "data": [29.33]},
]


def rows(**changed: Any) -> bytes:
    return json.dumps({"rows": [ROW, {**ROW, **changed}]}).encode()


BAD: dict[str, tuple[bytes, int, str | None]] = {
    "not JSON": (b'{"rows": [', 400, None),
    "empty": (b"", 400, None),
    "not UTF-8": (b'{"rows": [{"customer_id": 4, "amount": 1.0}], "id": "\xff"}', 400, None),
    "nested too deeply": (b"[" * 100_000, 422, "body"),
    "a member twice": (b'{"rows": [{"customer_id": 4, "amount": 1, "amount": 2}]}', 400, "amount"),
    "a list": (b"[]", 422, "body"),
    "no rows": (b'{"rows": []}', 422, "rows"),
    "rows missing": (b"{}", 422, "rows"),
    "unknown member": (json.dumps({**BODY, "speed": 1}).encode(), 422, "speed"),
    "unknown field": (rows(colour="red"), 422, "rows[1].colour"),
    "unknown entity": (json.dumps({"rows": [{"terminal_id": 4, "amount": 1.0}]}).encode(), 422, None),
    "missing feature": (json.dumps({"rows": [ROW, {"customer_id": 4}]}).encode(), 422, "rows[1].amount"),
    "null": (rows(amount=None), 422, "rows[1].amount"),
    "NaN": (rows(amount=float("nan")), 422, "rows[1].amount"),
    "infinity": (rows(amount=float("inf")), 422, "rows[1].amount"),
    "beyond float32": (rows(amount=1e300), 422, "rows[1].amount"),
    "text for a number": (rows(amount="12.5"), 422, "rows[1].amount"),
    "a fraction for a key": (rows(customer_id=4.5), 422, "rows[1].customer_id"),
    "beyond int64": (rows(customer_id=2**63), 422, "rows[1].customer_id"),
    "no time": (json.dumps({**BODY, "as_of": "yesterday"}).encode(), 422, "as_of"),
    "too many rows": (json.dumps({"rows": [ROW] * 1_001}).encode(), 413, "rows"),
    "body over the limit": (b" " * (LIMIT + 1), 413, "body"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_body_names_its_field_and_harms_nobody(platform: Platform, authorised: httpx.Client, name: str) -> None:
    body, status, field = BAD[name]
    replicas = platform.replicas()
    answer = authorised.post("/v1/decisions", content=body, headers={"x-request-id": "mine-17"})
    assert answer.status_code == status, answer.text
    said = answer.json()
    if field is not None:
        assert said["field"] == field
    assert said["error"]
    assert said["request_id"] == "mine-17"
    assert answer.headers["x-request-id"] == "mine-17"
    assert authorised.post("/v1/decisions", json=BODY).status_code == 200
    assert platform.replicas() == replicas
    assert replicas


def test_a_chunked_body_over_the_limit(authorised: httpx.Client) -> None:
    answer = authorised.post("/v1/decisions", content=(b" " * 65_536 for _ in range(20)))
    assert answer.status_code == 413
    assert authorised.post("/v1/decisions", json=BODY).status_code == 200


def test_tensors_name_what_is_wrong_with_them(authorised: httpx.Client) -> None:
    customer, amount = INPUTS
    for inputs, status, field in [
        ([customer], 400, "inputs.amount"),
        ([customer, {**amount, "datatype": "BYTES"}], 400, "inputs[1].datatype"),
        ([customer, {**amount, "data": ["much"]}], 400, "inputs[1].data[0]"),
        ([customer, {**amount, "shape": [2, 1]}], 400, "inputs[1].shape"),
        ([customer, {**amount, "data": [1.0, 2.0]}], 400, "inputs[1].data"),
        ([customer, amount, {**amount, "name": "speed"}], 400, "inputs[2].name"),
        ([{**customer, "shape": [1_001, 1]}, amount], 413, "inputs[0].shape"),
    ]:
        answer = authorised.post("/v2/models/churn/infer", json={"inputs": inputs}, headers={"x-request-id": "t-1"})
        assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
        assert answer.headers["x-request-id"] == "t-1"
    assert authorised.post("/v2/models/churn/infer", json={"inputs": INPUTS}).status_code == 200


def test_unknown_paths_and_models_say_what_there_is(platform: Platform, authorised: httpx.Client) -> None:
    answer = authorised.post("/v1/nothing", json=BODY)
    assert answer.status_code == 404
    assert "/v1/decisions" in answer.json()["error"]
    answer = authorised.post("/v2/models/fraud/infer", json={"inputs": INPUTS})
    assert answer.status_code == 404
    assert "churn" in answer.json()["error"]
    assert authorised.get("/v1/decisions").status_code == 404
    outside = httpx.post(f"{platform.url}/nosuch/v1/decisions", json=BODY, trust_env=False)
    assert outside.status_code == 404


def test_unknown_use_cases_list_the_known_ones(platform: Platform) -> None:
    for command in (("deploy", "nosuch"), ("score", "nosuch"), ("contract", "check", "nosuch")):
        said = platform.headway(*command, code=2).stderr
        assert "nosuch" in said
        assert "churn, fraud" in said
    assert "churn, fraud" in platform.headway("demo", "--use-case", "nosuch", code=2).stderr
