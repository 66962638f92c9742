"""Raw tensors, the repository index, MLflow's form and the pages, through the whole service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.helpers import Toy

CARD = {"name": "customer_id", "shape": [2, 1], "datatype": "INT64"}
SHOP = {"name": "shop", "shape": [2, 1], "datatype": "BYTES"}
AMOUNT = {"name": "amount", "shape": [2, 1], "datatype": "FP32"}
RAW = {
    "customer_id": np.array([5, 6], "<i8").tobytes(),
    "shop": b"\x01\x00\x00\x00a" * 2,
    "amount": np.array([20, 80], "<f4").tobytes(),
}


def raw(tensor: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**tensor, "parameters": {"binary_data_size": len(RAW[tensor["name"]])}} | changed


def mixed(inputs: list[dict[str, Any]], behind: bytes, **more: Any) -> tuple[bytes, dict[str, str]]:
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + behind, {"inference-header-content-length": str(len(head))}


def post(tmp_path: Path, body: bytes, headers: dict[str, str], path: str = "/v2/models/toy/infer") -> Any:
    return Toy(tmp_path).call(lambda toy: toy.http("POST", path, body, headers=headers))


def test_raw_tensors_and_json_tensors_decide_alike(tmp_path: Path) -> None:
    given = [raw(CARD), {**SHOP, "data": ["a", "a"]}, raw(AMOUNT)]
    behind = RAW["customer_id"] + RAW["amount"]
    body, headers = mixed(given, behind, parameters={"binary_data_output": True}, outputs=[
        {"name": "score"}, {"name": "label", "parameters": {"binary_data": False}},
    ])  # fmt: skip
    status, answered, content = post(tmp_path / "raw", body, headers)
    assert (status, answered["content-type"]) == (200, "application/octet-stream")
    length = int(answered["inference-header-content-length"])
    score, label = json.loads(content[:length])["outputs"]
    assert score["parameters"] == {"binary_data_size": 8}
    assert "data" not in score
    assert label["data"] == ["low", "high"]
    plain = {"customer_id": [5, 6], "shop": ["a", "a"], "amount": [20.0, 80.0]}
    tensors = [{**tensor, "data": plain[str(tensor["name"])]} for tensor in (CARD, SHOP, AMOUNT)]
    _, answered, content = Toy(tmp_path / "json").call(
        lambda toy: toy.http("POST", "/v2/models/toy/infer", json.dumps({"inputs": tensors}).encode())
    )
    assert "inference-header-content-length" not in answered
    wanted = json.loads(content)["outputs"][0]["data"]
    status, _, content = post(tmp_path / "again", *mixed(given, behind, parameters={"binary_data_output": True}))
    head = json.loads(content[: content.index(b"}]}") + 3])
    assert status == 200
    assert np.frombuffer(content[-8 - head["outputs"][1]["parameters"]["binary_data_size"] :][:8], "<f4").tolist() == (
        pytest.approx(wanted)
    )


@pytest.mark.parametrize(
    ("inputs", "behind", "field"),
    [
        ([raw(CARD), raw(SHOP), raw(AMOUNT)], b"".join(RAW.values())[:-1], "inputs[2].parameters.binary_data_size"),
        ([raw(CARD), raw(SHOP), raw(AMOUNT)], b"".join(RAW.values()) + b"x", "inputs"),
        ([raw(CARD), SHOP, raw(AMOUNT)], RAW["customer_id"], "inputs[1].data"),
        ([{**raw(CARD), "data": [1, 2]}, SHOP, AMOUNT], b"", "inputs[0].parameters.binary_data_size"),
        ([raw(CARD, parameters={"binary_data_size": -1})], b"", "inputs[0].parameters.binary_data_size"),
        ([raw(CARD, parameters={"binary_data_size": "16"})], b"", "inputs[0].parameters.binary_data_size"),
        ([raw(CARD, shape=[3, 1])], RAW["customer_id"], "inputs[0].parameters.binary_data_size"),
        (
            [raw(CARD), raw(SHOP), raw(AMOUNT)],
            RAW["customer_id"] + RAW["shop"] + np.array([1, np.nan], "<f4").tobytes(),
            "inputs[2].data[1]",
        ),
    ],
)
def test_raw_tensors_name_what_is_wrong(tmp_path: Path, inputs: Any, behind: bytes, field: str) -> None:
    status, _, content = post(tmp_path, *mixed(inputs, behind))
    assert (status, json.loads(content)["field"]) == (400, field), content


@pytest.mark.parametrize(("length", "status"), [("x", 400), ("-1", 400), ("99999999", 400), ("9" * 30, 400)])
def test_a_header_length_that_is_none_is_refused(tmp_path: Path, length: str, status: int) -> None:
    got, _, content = post(tmp_path, b"{}", {"inference-header-content-length": length})
    assert (got, json.loads(content)["field"]) == (status, "inference-header-content-length")


def test_the_repository_index_lists_what_serves(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[Any]:
        return [
            await toy.http("POST", "/v2/repository/index", b""),
            await toy.http("POST", "/v2/repository/index", b'{"ready": true}'),
            await toy.http("POST", "/v2/repository/index", b"", token=None),
        ]

    everything, ready, refused = Toy(tmp_path).call(work)
    assert json.loads(everything[2]) == [{"name": "toy", "version": "7", "state": "READY", "reason": ""}]
    assert json.loads(ready[2]) == json.loads(everything[2])
    assert refused[0] == 401


ROW = {"customer_id": 5, "shop": "a", "amount": 80.0}
SPLIT = {"columns": list(ROW), "data": [list(ROW.values())]}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": SPLIT},
        {"dataframe_split": {**SPLIT, "index": [0]}},
        {"dataframe_records": [ROW]},
        {"instances": [ROW]},
        {"inputs": [ROW]},
        {"inputs": {name: [value] for name, value in ROW.items()}},
        {"inputs": {name: [[value]] for name, value in ROW.items()}, "params": {}},
    ],
)
def test_mlflows_forms_are_the_same_decision(tmp_path: Path, body: Any) -> None:
    status, _, content = post(tmp_path, json.dumps(body).encode(), {}, "/invocations")
    (prediction,) = json.loads(content)["predictions"]
    assert (status, prediction["label"], prediction["arm"]) == (200, "high", "champion")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "body"),
        ({"inputs": [ROW], "instances": [ROW]}, 422, "body"),
        ({"dataframe_records": []}, 422, "dataframe_records"),
        ({"dataframe_records": [{**ROW, "amount": "x"}]}, 422, "dataframe_records[0].amount"),
        ({"dataframe_records": [{**ROW, "colour": 1}]}, 422, "dataframe_records[0].colour"),
        ({"dataframe_split": {"columns": ["amount"], "data": [[1, 2]]}}, 422, "dataframe_split.data[0]"),
        ({"dataframe_split": {"columns": ["amount", "amount"], "data": [[1, 2]]}}, 422, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": ["amount"], "data": [[1]]}}, 422, "dataframe_split.data[0].customer_id"),
        ({"inputs": {"amount": [1, 2], "shop": ["a"]}}, 422, "inputs"),
        ({"inputs": [ROW] * 1_001}, 413, "inputs"),
        ({"inputs": [ROW], "params": {"temperature": 1}}, 422, "params"),
        ({"inputs": [{**ROW, "event_time": "soon"}]}, 422, "inputs[0].event_time"),
        ({"inputs": [{**ROW, "event_time": 5}]}, 403, None),
    ],
)
def test_what_is_no_data_frame_is_named(tmp_path: Path, body: Any, status: int, field: str | None) -> None:
    got, _, content = post(tmp_path, json.dumps(body).encode(), {}, "/invocations")
    assert (got, json.loads(content).get("field")) == (status, field), content


def test_csv_is_refused_with_the_way_out(tmp_path: Path) -> None:
    got, _, content = post(tmp_path, b"amount\n1\n", {"content-type": "text/csv"}, "/invocations")
    assert (got, json.loads(content)["field"]) == (422, "content-type")
    assert "application/json" in json.loads(content)["error"]


def test_the_pages_need_no_token_and_hold_every_path(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[Any]:
        return [await toy.http("GET", path, token=None) for path in ("/docs", "/openapi.json")]

    page, document = Toy(tmp_path).call(work)
    assert page[1]["content-type"] == "text/html; charset=utf-8"
    described = json.loads(document[2])
    assert described["components"]["schemas"]["ErrorBody"]
    for path in described["paths"]:
        assert path in page[2].decode()
    assert "<script" not in page[2].decode()
    row = described["paths"]["/v1/decisions"]["post"]["requestBody"]["content"]["application/json"]
    assert set(row["example"]["rows"][0]) == {"customer_id", "shop", "amount"}
