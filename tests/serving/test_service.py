from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from headway.core.clock import ManualClock
from headway.core.errors import Unavailable
from tests.serving.helpers import NOW, Toy


def body(*amounts: float, **more: Any) -> bytes:
    rows = [{"customer_id": 5, "shop": "a", "amount": amount} for amount in amounts]
    return json.dumps({"rows": rows, **more}).encode()


def test_a_decision_is_answered_recorded_and_counted(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    status, headers, answer = toy.call(
        lambda t: t.http("POST", "/v1/decisions", body(20, 80, id="abc"), headers={"x-request-id": "r1"})
    )
    said = json.loads(answer)
    assert status == 200
    assert headers["x-request-id"] == "r1"
    assert said["id"] == "abc"
    assert said["model_version"] == "7"
    assert [(d["label"], d["arm"], d["degraded"]) for d in said["decisions"]] == [
        ("low", "champion", []),
        ("high", "champion", []),
    ]
    assert all(toy.ids.known(d["decision_id"]) for d in said["decisions"])
    [batch] = toy.recorder.batches
    assert batch.features[:, 0].tolist() == [20, 80]
    assert batch.features[0, 1] == 5
    assert batch.calls == [("alice", "r1", 2)]
    assert toy.model.counted == 2


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [(None, 401, "unauthenticated"), ("forged", 401, "unauthenticated"), ("nobody", 403, "forbidden"),
     ("stranger", 403, "forbidden")],
)  # fmt: skip
def test_without_right_there_is_no_decision(tmp_path: Path, token: str | None, status: int, code: str) -> None:
    toy = Toy(tmp_path)
    got, headers, answer = toy.call(lambda t: t.http("POST", "/v1/decisions", body(1), token=token))
    assert got == status
    assert json.loads(answer)["code"] == code
    assert json.loads(answer)["request_id"] == headers["x-request-id"]
    assert not toy.recorder.batches


@pytest.mark.parametrize(
    ("payload", "status", "field"),
    [
        (b"{", 400, None),
        (b"[" * 100_000, 422, "body"),
        (b'{"rows":[{"customer_id":1,"shop":"a"}]}', 422, "rows[0].amount"),
        (b'{"rows":[{"customer_id":1,"shop":"a","amount":NaN}]}', 422, "rows[0].amount"),
        (b'{"rows":[{"customer_id":1,"shop":"a","amount":1e308}]}', 422, "rows[0].amount"),
        (b'{"rows":[{"customer_id":"1","shop":"a","amount":1}]}', 422, "rows[0].customer_id"),
        (b'{"rows":[{"customer_id":1,"shop":"a","amount":1,"x":1}]}', 422, "rows[0].x"),
        (b'{"rows":[{"customer_id":1,"shop":"a","amount":1,"amount":2}]}', 400, "amount"),
        (b'{"rows":[]}', 422, "rows"),
        (b'{"rows":[' + b",".join([b'{"customer_id":1,"shop":"a","amount":1}'] * 1001) + b"]}", 413, "rows"),
        (b'{"rows":[{"customer_id":1,"shop":"a","amount":1}],"as_of":"soon"}', 422, "as_of"),
    ],
)
def test_bad_input_names_the_field_and_harms_nobody(
    tmp_path: Path, payload: bytes, status: int, field: str | None
) -> None:
    async def both(toy: Toy) -> tuple[Any, Any]:
        return await toy.http("POST", "/v1/decisions", payload), await toy.http("POST", "/v1/decisions", body(10))

    bad, good = Toy(tmp_path).call(both)
    said = json.loads(bad[2])
    assert (bad[0], said.get("field")) == (status, field)
    assert "Traceback" not in said["error"]
    assert good[0] == 200


def test_time_needs_the_replay_scope(tmp_path: Path) -> None:
    payload = body(1, as_of="2018-08-08T00:00:00Z")
    row = b'{"rows":[{"customer_id":1,"shop":"a","amount":1,"event_time":1500000000000000}]}'

    async def work(toy: Toy) -> list[int]:
        return [
            (await toy.http("POST", "/v1/decisions", data, token=who))[0]
            for who in ("alice", "replayer")
            for data in (payload, row)
        ]

    toy = Toy(tmp_path)
    assert toy.call(work) == [403, 403, 200, 200]
    assert [batch.at.tolist() for batch in toy.recorder.batches] == [[1_533_686_400_000_000], [1_500_000_000_000_000]]


@pytest.mark.parametrize("parts", [[b"x" * 600_000, b"x" * 600_000], [b"x" * (1 << 20), b"x"]])
def test_an_endless_body_is_refused_before_it_is_buffered(tmp_path: Path, parts: list[bytes]) -> None:
    status, headers, answer = Toy(tmp_path).call(lambda t: t.http("POST", "/v1/decisions", parts))
    assert status == 413
    assert headers["connection"] == "close"
    assert json.loads(answer)["field"] == "body"


def test_a_declared_size_is_refused_unread(tmp_path: Path) -> None:
    status, _, _ = Toy(tmp_path).call(
        lambda t: t.http("POST", "/v1/decisions", [], headers={"content-length": "100000000"})
    )
    assert status == 413


def test_only_the_poisonous_request_of_a_batch_falls_back(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[tuple[int, dict[str, str], bytes]]:
        amounts = [10, 20, 666, 30, 40]
        return list(await asyncio.gather(*(toy.http("POST", "/v1/decisions", body(a)) for a in amounts)))

    toy = Toy(tmp_path)
    answers = toy.call(work)
    said = [json.loads(answer)["decisions"][0] for _, _, answer in answers]
    assert [decision["arm"] for decision in said] == ["champion", "champion", "rules", "champion", "champion"]
    assert said[2]["degraded"] == ["model:failed"]
    assert said[2]["score"] == 0.25


@pytest.mark.parametrize("guilty", [666, 13])
def test_without_rules_only_who_breaks_the_model_is_refused(tmp_path: Path, guilty: float) -> None:
    async def work(toy: Toy) -> list[tuple[int, dict[str, str], bytes]]:
        amounts = (10, guilty, 30, 40, 50)
        return list(await asyncio.gather(*(toy.http("POST", "/v1/decisions", body(a)) for a in amounts)))

    toy = Toy(tmp_path, with_rules=False, ladder=())
    answers = toy.call(work)
    assert [status for status, _, _ in answers] == [200, 503, 200, 200, 200]
    assert sum(toy.reader.batches) == 5  # halved where its features are: none is read again
    assert sum(len(batch.at) for batch in toy.recorder.batches) == 4


def test_without_rules_a_failing_model_is_503_and_says_nothing_of_the_inside(tmp_path: Path) -> None:
    status, headers, answer = Toy(tmp_path, with_rules=False, ladder=()).call(
        lambda t: t.http("POST", "/v1/decisions", body(666))
    )
    assert status == 503
    assert headers["retry-after"] == "1"
    assert b"secret" not in answer


def test_a_score_that_is_no_number_is_never_answered(tmp_path: Path) -> None:
    _, _, answer = Toy(tmp_path).call(lambda t: t.http("POST", "/v1/decisions", body(13, 20)))
    first, second = json.loads(answer)["decisions"]
    assert (first["arm"], first["score"], first["degraded"]) == ("rules", 0.25, ["model:not_finite"])
    assert second["arm"] == "champion"


def test_unreachable_features_are_answered_by_rules_and_the_breaker_opens(tmp_path: Path) -> None:
    toy = Toy(tmp_path, clock=ManualClock(NOW))
    toy.reader.failure = Unavailable("gone", retry_after_s=1)

    async def work(t: Toy) -> list[Any]:
        return [json.loads((await t.http("POST", "/v1/decisions", body(90)))[2]) for _ in range(5)]

    answers = toy.call(work)
    assert [a["decisions"][0]["degraded"] for a in answers] == [["features:activity", "features:shops"]] * 5
    assert len(toy.reader.batches) == 3


def test_the_same_key_is_answered_once(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[tuple[int, dict[str, str], bytes]]:
        key = {"idempotency-key": "k1"}
        together = await asyncio.gather(*(toy.http("POST", "/v1/decisions", body(1), headers=key) for _ in range(3)))
        other_body = await toy.http("POST", "/v1/decisions", body(2), headers=key)
        other_sub = await toy.http("POST", "/v1/decisions", body(2), headers=key, token="replayer")
        return [*together, other_body, other_sub]

    toy = Toy(tmp_path)
    answers = toy.call(work)
    assert [answer[0] for answer in answers] == [200, 200, 200, 409, 200]
    assert answers[0][2] == answers[1][2] == answers[2][2]
    assert sum(len(batch.decisions) for batch in toy.recorder.batches) == 2


def test_a_client_above_its_rate_is_429_with_the_time_to_come_back(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[Any]:
        return [await toy.http("POST", "/v1/decisions", body(1, 2)) for _ in range(3)]

    answers = Toy(tmp_path, rate=0.1, burst=4).call(work)
    assert [answer[0] for answer in answers] == [200, 200, 429]
    assert 10 <= int(answers[2][1]["retry-after"]) <= 20


def test_stale_features_are_rejected_where_the_contract_says_so(tmp_path: Path) -> None:
    from headway.serving.terms import Freshness

    toy = Toy(tmp_path, freshness=(Freshness(view="activity", max_lag=5, on_stale="reject"),))
    toy.reader.watermark = NOW
    status, _, answer = toy.call(lambda t: t.http("POST", "/v1/decisions", body(1)))
    assert status == 503
    assert "stale:activity" in json.loads(answer)["error"]


def test_stale_features_read_as_missing_and_are_named(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.reader.watermark = NOW
    _, _, answer = toy.call(lambda t: t.http("POST", "/v1/decisions", body(1)))
    assert json.loads(answer)["decisions"][0]["degraded"] == ["stale:activity"]
    served = toy.recorder.batches[0].features[0]
    assert served[0] == 1
    assert served[1] != served[1]
    assert served[3] == 1


def test_unknown_paths_models_and_versions_list_what_there_is(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[tuple[int, Any]]:
        paths = ["/v1/nothing", "/v2/models/other", "/v2/models/toy/versions/9/ready"]
        answers = [await toy.http("GET", path) for path in paths]
        return [(status, json.loads(answer)["error"]) for status, _, answer in answers]

    answers = Toy(tmp_path).call(work)
    assert [status for status, _ in answers] == [404, 404, 404]
    assert "known: POST /v1/decisions" in answers[0][1] or "POST /v1/decisions" in answers[0][1]
    assert "known: toy" in answers[1][1]
    assert "known: 7" in answers[2][1]


def test_open_inference_metadata_health_and_infer(tmp_path: Path) -> None:
    request = {
        "id": "q",
        "inputs": [
            {"name": "customer_id", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]},
            {"name": "shop", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]},
            {"name": "amount", "shape": [2, 1], "datatype": "FP32", "data": [[20.0], [80.0]]},
        ],
    }

    async def work(toy: Toy) -> list[tuple[int, Any]]:
        answers = [await toy.http("GET", path, token=None) for path in ("/v2/health/live", "/v2/health/ready")]
        answers += [
            await toy.http("GET", path) for path in ("/v2", "/v2/models/toy", "/v2/models/toy/versions/7/ready")
        ]
        answers.append(await toy.http("POST", "/v2/models/toy/infer", json.dumps(request).encode()))
        return [(status, json.loads(answer)) for status, _, answer in answers]

    live, ready, server, model, version, infer = Toy(tmp_path).call(work)
    assert live == (200, {"live": True})
    assert ready[0] == version[0] == 200
    assert server[1]["name"] == "headway"
    assert [item["name"] for item in model[1]["inputs"]] == ["customer_id", "shop", "amount", "event_time"]
    assert infer[0] == 200
    outputs = {output["name"]: output for output in infer[1]["outputs"]}
    assert outputs["label"]["data"] == ["low", "high"]
    assert outputs["score"]["shape"] == [2, 1]
    assert infer[1]["id"] == "q"
    assert len(infer[1]["parameters"]["decision_ids"]) == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"datatype": "FP16"}, "inputs[2].datatype"),
        ({"shape": [3, 1]}, "inputs[2].shape"),
        ({"shape": [2, 2]}, "inputs[2].shape"),
        ({"data": [1.0]}, "inputs[2].data"),
        ({"data": [1.0, "x"]}, "inputs[2].data[1]"),
        ({"data": [1.0, 1e300]}, "inputs[2].data[1]"),
        ({"name": "amonut"}, "inputs[2].name"),
    ],
)
def test_open_inference_errors_name_the_tensor(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    amount = {"name": "amount", "shape": [2, 1], "datatype": "FP32", "data": [20.0, 80.0], **change}
    inputs = [
        {"name": "customer_id", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]},
        {"name": "shop", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]},
        amount,
    ]
    status, _, answer = Toy(tmp_path).call(
        lambda t: t.http("POST", "/v2/models/toy/infer", json.dumps({"inputs": inputs}).encode())
    )
    assert (status, json.loads(answer)["field"]) == (400, field)


def test_outcomes_are_counted_once_and_forged_ids_are_unknown(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[Any]:
        decided = json.loads((await toy.http("POST", "/v1/decisions", body(1, 2)))[2])
        ids = [d["decision_id"] for d in decided["decisions"]]
        rows = [{"decision_id": i, "label": 1, "event_time": NOW} for i in [*ids, ids[0]]]
        rows.append({"decision_id": "018bcfe5-6800-7429-8c45-e49985ae9131", "label": "high", "event_time": NOW})
        payload = json.dumps({"outcomes": rows}).encode()
        wrong = json.dumps({"outcomes": [{"decision_id": ids[0], "label": 3, "event_time": NOW}]}).encode()
        return [json.loads((await toy.http("POST", "/v1/outcomes", data))[2]) for data in (payload, payload, wrong)]

    first, second, wrong = Toy(tmp_path).call(work)
    assert first == {"accepted": 2, "duplicate": 1, "unknown": 1}
    assert second == {"accepted": 0, "duplicate": 3, "unknown": 1}
    assert wrong["field"] == "outcomes[0].label"


def test_concurrent_requests_share_batches(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[int]:
        answers = await asyncio.gather(*(toy.http("POST", "/v1/decisions", body(a)) for a in range(40)))
        scores = [json.loads(answer)["decisions"][0]["score"] for _, _, answer in answers]
        assert scores == pytest.approx([0.25 if a == 13 else a / 100 for a in range(40)])
        return toy.model.batches

    assert len(Toy(tmp_path).call(work)) < 10
