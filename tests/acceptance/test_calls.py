"""The ways to ask: friendly JSON, Open Inference Protocol, the client over HTTP, a Ray handle; and outcomes."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from headway.client import Client
from headway.core.errors import Forbidden, InvalidValue, Unauthenticated
from tests.acceptance.platform import BODY, ROW, Platform

INPUTS = [
    {"name": "customer_id", "shape": [2, 1], "datatype": "INT64", "data": [4, 21]},
    {"name": "amount", "shape": [2, 1], "datatype": "FP32", "data": [29.33, 14.0]},
]
AS_OF = "1998-02-01T00:00:00Z"
HANDLE = """
import json, os, sys
import ray
from headway import Client
from headway.core.errors import Unauthenticated
from headway.serving.handle import HandleTransport

ray.init(address=os.environ["RAY_ADDRESS"], namespace="headway", log_to_driver=False)
token, rows = sys.argv[1], json.loads(sys.argv[2])
client = Client.from_ray("churn", token=token)
answer = client.decide(rows, as_of=sys.argv[3])
refused = []
for bad in ("", "garbage"):
    try:
        Client.from_ray("churn", token=bad).decide(rows)
    except Unauthenticated as error:
        refused.append(error.code)
body = json.dumps({"rows": rows}).encode()
bare = HandleTransport("churn")._handle.respond.remote("POST", "/v1/decisions", body).result(timeout_s=20)
print(json.dumps({"scores": [d.score for d in answer.decisions], "refused": refused, "bare": bare[0]}))
"""


def test_friendly_json_and_tensors_give_the_same_scores(authorised: httpx.Client) -> None:
    rows = [ROW, {"customer_id": 21, "amount": 14.0}]
    friendly = authorised.post("/v1/decisions", json={"rows": rows, "as_of": AS_OF}).json()["decisions"]
    time = {"name": "event_time", "shape": [2, 1], "datatype": "INT64", "data": [886_291_200_000_000] * 2}
    answer = authorised.post("/v2/models/churn/infer", json={"id": "a-1", "inputs": [*INPUTS, time]})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model_name"], body["id"]) == ("churn", "a-1")
    outputs = {item["name"]: item for item in body["outputs"]}
    assert outputs["score"]["datatype"] == "FP32"
    assert outputs["label"]["datatype"] == "BYTES"
    assert outputs["score"]["shape"] == outputs["label"]["shape"] == [2, 1]
    assert outputs["score"]["data"] == [decision["score"] for decision in friendly]
    assert outputs["label"]["data"] == [decision["label"] for decision in friendly]
    assert body["parameters"]["arm"] == ["champion", "champion"]
    assert len(set(body["parameters"]["decision_ids"])) == 2


def test_metadata_and_readiness(platform: Platform, authorised: httpx.Client, http: httpx.Client) -> None:
    version = platform.first["use_cases"]["churn"]["model"]["version"]
    metadata = authorised.get("/v2/models/churn").json()
    assert metadata["name"] == "churn"
    assert metadata["versions"] == [version]
    assert {item["name"]: item["datatype"] for item in metadata["inputs"]} == {
        "customer_id": "INT64",
        "amount": "FP32",
        "event_time": "INT64",
    }
    assert [item["name"] for item in metadata["outputs"]] == ["score", "label"]
    assert authorised.get("/v2").json()["name"] == "headway"
    del http.headers["authorization"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/churn/ready"):
        assert http.get(path).status_code == 200
    assert http.get("/v2/models/churn").status_code == 401


def test_the_client_over_http(platform: Platform) -> None:
    token = platform.token("decide:churn", "outcomes:churn")
    with Client(platform.url, "churn", token=token) as client:
        assert client.ready()
        answer = client.decide([ROW, ROW], request_id="mine")
        assert answer.id == "mine"
        assert len({decision.decision_id for decision in answer.decisions}) == 2
        assert client.infer(INPUTS)["model_name"] == "churn"
        with pytest.raises(InvalidValue) as caught:
            client.decide([{"customer_id": 4}])
        assert caught.value.field == "rows[0].amount"
        with pytest.raises(Forbidden):
            client.decide([ROW], as_of=AS_OF)
    with pytest.raises(Unauthenticated), Client(platform.url, "churn", token="garbage") as client:
        client.decide([ROW])


def test_a_ray_handle_in_a_readied_shell_needs_a_token_like_http(
    platform: Platform, authorised: httpx.Client, tmp_path: Path
) -> None:
    script = tmp_path / "handle.py"
    script.write_text(HANDLE)
    token = platform.token("decide:churn", "replay:churn")
    command = 'eval "$(headway status --shell)" && exec python "$@"'
    done = platform.run("bash", "-ec", command, "bash", str(script), token, json.dumps([ROW]), AS_OF)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["refused"] == ["unauthenticated", "unauthenticated"]
    assert said["bare"] == 401
    by_http = authorised.post("/v1/decisions", json={**BODY, "as_of": AS_OF}).json()
    assert said["scores"] == [by_http["decisions"][0]["score"]]


def test_outcomes_are_counted_as_accepted_duplicate_or_unknown(authorised: httpx.Client) -> None:
    made = authorised.post("/v1/decisions", json={"rows": [ROW] * 3}).json()["decisions"]
    first, second, third = (decision["decision_id"] for decision in made)
    known = {"label": 1, "event_time": "2026-01-01T00:00:00Z"}

    def post(*outcomes: dict[str, object]) -> httpx.Response:
        return authorised.post("/v1/outcomes", json={"outcomes": outcomes})

    assert post({"decision_id": first, **known}).json() == {"accepted": 1, "duplicate": 0, "unknown": 0}
    forged = first[:-1] + ("0" if first[-1] != "0" else "1")
    mixed = post(
        {"decision_id": first, **known},
        {"decision_id": second, **known, "label": "returns"},
        {"decision_id": second, **known},
        {"decision_id": "01890000-0000-7000-8000-000000000000", **known},
        {"decision_id": forged, **known},
    )
    assert mixed.json() == {"accepted": 1, "duplicate": 2, "unknown": 2}
    for member, value in [("label", 7), ("event_time", "soon")]:
        answer = post({"decision_id": third, **known}, {"decision_id": third, **known, member: value})
        assert (answer.status_code, answer.json()["field"]) == (422, f"outcomes[1].{member}")
    # a request with a wrong row took none of its rows
    assert post({"decision_id": third, **known}).json()["accepted"] == 1
