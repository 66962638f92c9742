"""Reasons with decisions: over HTTP, handle and tensors, metered, audited, in time or not at all."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import msgspec
import numpy as np
import pytest

from headway.client import Decisions
from headway.core.errors import PlatformError
from headway.core.types import Matrix
from headway.features.definitions import EventSource, FeatureService
from headway.governance.audit_event import MemoryAudit
from headway.models.explain import Explained, Explainer, PermutationShapley
from headway.serving.explaining import EXTRA_ROWS, Explaining
from headway.serving.grpc.messages import RESPONSES
from headway.serving.reasons import REASONS, Wording
from tests.models.conftest import make_booster
from tests.serving.grpc.helpers import infer, metadata
from tests.serving.helpers import Toy, activity, listening, sales, service

PATH = "/v1/decisions?explain=true"


def body(*amounts: float, **more: Any) -> bytes:
    rows = [{"customer_id": 5, "shop": "a", "amount": amount} for amount in amounts]
    return json.dumps({"rows": rows, **more}).encode()


class Trees:
    """A real booster as the champion of the toy use case."""

    name = "trees"
    version = "9"

    def __init__(self) -> None:
        generator = np.random.default_rng(4)
        matrix = generator.normal(20, 20, size=(2_000, 4)).astype(np.float32)
        self.booster = make_booster(matrix, rounds=20)

    def predict(self, matrix: Matrix) -> Matrix:
        return np.asarray(self.booster.inplace_predict(matrix), dtype=np.float32)

    def count(self, matrix: Matrix, scores: Matrix, at: Any) -> None:
        pass


class Slow:
    """An explainer that waits until it is let go."""

    method, unit = "tree_shap", "score"

    def __init__(self) -> None:
        self.go = threading.Event()

    def explain(self, matrix: Matrix) -> Explained:
        self.go.wait(60)
        scores = np.clip(matrix[:, 0] / 100, 0, 1).astype(np.float64)
        return Explained(base=0 * scores, contributions=np.zeros(matrix.shape), margin=scores)


def explains(
    open_explainer: Callable[[Any], Explainer], audit: Any | None = None, wording: Wording | None = None
) -> Callable[[Toy], Explaining]:
    def make(toy: Toy) -> Explaining:
        return Explaining(
            "toy",
            open_explainer=open_explainer,
            steps=lambda: toy.steps,
            wording=wording or Wording.of(service),
            audit=audit or MemoryAudit(),
            clock=toy.clock,
        )

    return make


def by_permutations(model: Any) -> Explainer:
    return PermutationShapley(model, np.array([50, 0, 0, 1], np.float32), unit="score")


def by_trees(model: Trees) -> Explainer:
    from headway.models.explain import TreeShap

    return TreeShap(bytes(model.booster.save_raw("json")), unit="log_odds")


def ask(toy: Toy, data: bytes, query: str = "explain=true", **more: Any) -> tuple[int, Any]:
    async def work(t: Toy) -> tuple[int, Any]:
        status, _, answer = await t.http("POST", "/v1/decisions", data, query=query, **more)
        return status, json.loads(answer)

    return toy.call(work)


def test_reasons_of_real_trees_add_up_to_the_served_score(tmp_path: Path) -> None:
    audit = MemoryAudit()
    toy = Toy(tmp_path, explaining=explains(by_trees, audit))
    toy.steps = [("champion", Trees())]
    status, said = ask(toy, body(20, 80), headers={"x-request-id": "r1"})
    assert status == 200
    [batch] = toy.recorder.batches
    for row, decision in zip(batch.features, said["decisions"], strict=True):
        how, reasons = decision["explanation"], decision["reasons"]
        assert (how["method"], how["unit"], how["why"]) == ("tree_shap", "log_odds", "")
        assert how["base"] + sum(r["contribution"] for r in reasons) + how["others"] == pytest.approx(how["margin"])
        assert 1 / (1 + math.exp(-how["margin"])) == pytest.approx(decision["score"], abs=1e-6)
        assert how["others"] == pytest.approx(0, abs=1e-4)  # four features, five reasons
        sizes = [abs(r["contribution"]) for r in reasons]
        assert sizes == sorted(sizes, reverse=True)
        assert sum(r["share"] for r in reasons) == pytest.approx(1)
        for reason in reasons:
            assert reason["direction"] == ("raises" if reason["contribution"] > 0 else "lowers")
            assert reason["value"] == row[service.features.index(reason["feature"])]
    names = {r["feature"]: r["name"] for r in said["decisions"][0]["reasons"]}
    assert names["activity__count_7d"] == "activity: number of events, 7d"
    assert names["amount"] == "amount"
    [event] = audit.events
    assert (event.actor, event.action, event.resource) == ("alice", "decision.explain", "decisions:toy/r1")
    assert event.outcome == "2 by tree_shap of version 9"


def test_without_the_question_nothing_changes(tmp_path: Path) -> None:
    audit = MemoryAudit()
    toy = Toy(tmp_path, explaining=explains(by_permutations, audit))
    plain, refused = ask(toy, body(20), query=""), ask(toy, body(20), query="explain=false&utm=1")
    for status, said in (plain, refused):
        assert status == 200
        assert "reasons" not in said["decisions"][0]
    assert not audit.events


@pytest.mark.parametrize("query", ["explain=", "explain=yes", "explain=1", "explain=true&explain=true", "explain=True"])
def test_what_is_neither_true_nor_false_is_refused(tmp_path: Path, query: str) -> None:
    toy = Toy(tmp_path, explaining=explains(by_permutations))
    status, said = ask(toy, body(20), query=query)
    assert (status, said["field"]) == (422, "explain")
    assert not toy.recorder.batches


def test_an_application_without_reasons_says_so(tmp_path: Path) -> None:
    status, said = ask(Toy(tmp_path), body(20))
    assert (status, said["field"]) == (422, "explain")


def test_an_explained_row_costs_ten(tmp_path: Path) -> None:
    toy = Toy(tmp_path, explaining=explains(by_permutations), rate=0.001, burst=25)
    assert EXTRA_ROWS == 9
    too_many, said = ask(toy, body(1, 2, 3))
    assert (too_many, "30 with their reasons" in said["error"]) == (413, True)
    assert [ask(toy, body(1, 2))[0], ask(toy, body(1))[0]] == [200, 429]
    assert ask(toy, body(1, 2, 3, 4, 5), query="")[0] == 200  # five of the twenty-five are left
    assert ask(toy, body(1), query="")[0] == 429


def test_decided_by_rules_there_are_no_reasons(tmp_path: Path) -> None:
    toy = Toy(tmp_path, explaining=explains(by_permutations))
    status, said = ask(toy, body(20, 13))  # 13 gives a score that is not a number
    assert status == 200
    first, second = said["decisions"]
    assert first["explanation"]["method"] == "permutation_shapley"
    assert (second["arm"], second["reasons"], second["explanation"]["why"]) == ("rules", [], "decided by rules")
    status, said = ask(toy, body(666))
    assert said["decisions"][0]["explanation"]["why"] == "decided without a model"


def test_late_reasons_do_not_cost_the_decision(tmp_path: Path) -> None:
    slow, audit = Slow(), MemoryAudit()
    toy = Toy(tmp_path, explaining=explains(lambda _: slow, audit), deadline_s=0.02)

    async def work(t: Toy) -> tuple[int, Any, int]:
        status, _, answer = await t.http("POST", "/v1/decisions", body(20), query="explain=true")
        plain, _, _ = await t.http("POST", "/v1/decisions", body(20))  # nothing is blocked meanwhile
        slow.go.set()
        return status, json.loads(answer), plain

    status, said, plain = toy.call(work)
    assert (status, plain) == (200, 200)
    assert said["decisions"][0]["score"] == pytest.approx(0.2)
    assert said["decisions"][0]["explanation"] == {
        "method": "none", "unit": "", "base": None, "others": None, "margin": None,
        "why": "not done before the deadline",
    }  # fmt: skip
    assert not audit.events


def test_only_so_many_wait_and_the_rest_is_refused_before_it_is_decided(tmp_path: Path) -> None:
    slow = Slow()
    toy = Toy(tmp_path, explaining=explains(lambda _: slow), deadline_s=10)

    async def work(t: Toy) -> list[int]:
        calls = [
            asyncio.create_task(t.http("POST", "/v1/decisions", body(20), query="explain=true")) for _ in range(12)
        ]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)  # a refusal: the others wait
        slow.go.set()
        return sorted([(await call)[0] for call in calls])

    assert toy.call(work, within_s=60) == [200] * 8 + [503] * 4
    assert sum(len(batch.at) for batch in toy.recorder.batches) == 8


def test_a_version_that_cannot_be_explained_is_asked_once_and_decides_on(tmp_path: Path) -> None:
    opened = []

    def broken(model: Any) -> Explainer:
        opened.append(model)
        raise PlatformError("the file is gone")

    toy = Toy(tmp_path, explaining=explains(broken))
    for _ in range(3):
        status, said = ask(toy, body(20))
        assert (status, "cannot be explained" in said["error"]) == (503, True)
        assert "gone" not in said["error"]
    assert len(opened) == 1
    assert not toy.recorder.batches
    assert ask(toy, body(20), query="")[0] == 200


def test_what_cannot_be_recorded_is_not_told(tmp_path: Path) -> None:
    class Full:
        def append(self, **_: Any) -> Any:
            raise PlatformError("the disk refused the write")

    toy = Toy(tmp_path, explaining=explains(by_permutations, Full()))
    status, said = ask(toy, body(20))
    assert status == 200
    assert (said["decisions"][0]["reasons"], said["decisions"][0]["explanation"]["why"]) == ([], "failed")


def test_reasons_that_contradict_the_score_are_not_told(tmp_path: Path) -> None:
    other = PermutationShapley(Trees(), np.zeros(4, np.float32), unit="score")
    status, said = ask(Toy(tmp_path, explaining=explains(lambda _: other)), body(99))
    assert status == 200
    assert said["decisions"][0]["explanation"]["why"] == "the reasons do not give the served score"


def test_a_key_has_one_answer_with_reasons_and_another_question_conflicts(tmp_path: Path) -> None:
    toy = Toy(tmp_path, explaining=explains(by_permutations))

    async def work(t: Toy) -> list[tuple[int, Any]]:
        keyed = {"idempotency-key": "k"}
        said = []
        for query in ("explain=true", "explain=true", ""):
            status, _, answer = await t.http("POST", "/v1/decisions", body(20), query=query, headers=keyed)
            said.append((status, json.loads(answer)))
        return said

    first, again, other = toy.call(work)
    assert first == again
    assert first[1]["decisions"][0]["reasons"]
    assert other[0] == 409
    assert len(toy.recorder.batches) == 1


def test_personal_values_are_withheld_unless_the_caller_sent_them(tmp_path: Path) -> None:
    tagged = replace(activity, source=replace(sales, tags={"amount": ("pii",)}))
    personal = replace(service, views=(tagged, service.views[1]), tags={"amount": ("pii",)})
    assert isinstance(personal, FeatureService)
    assert isinstance(sales, EventSource)
    wording = Wording.of(personal)
    assert wording.withheld == {"activity__amount_mean_7d"}

    class All:
        method, unit = "tree_shap", "score"

        def explain(self, matrix: Matrix) -> Explained:
            margin = np.clip(matrix[:, 0] / 100, 0, 1).astype(np.float64)
            return Explained(base=margin - 4, contributions=np.ones(matrix.shape), margin=margin)

    toy = Toy(tmp_path, explaining=explains(lambda _: All(), wording=wording))
    _, said = ask(toy, body(20))
    told = {r["feature"]: (r["value"], r["withheld"]) for r in said["decisions"][0]["reasons"]}
    assert told["activity__amount_mean_7d"] == (None, True)
    assert told["amount"] == (20, False)
    assert told["activity__count_7d"] == (5, False)


@pytest.mark.parametrize("lanes", [False, True])
def test_tensors_and_query_by_a_real_server_with_and_without_the_short_way(tmp_path: Path, lanes: bool) -> None:
    tensors = {
        "inputs": [
            {"name": "customer_id", "shape": [2, 1], "datatype": "INT64", "data": [5, 6]},
            {"name": "shop", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]},
            {"name": "amount", "shape": [2, 1], "datatype": "FP32", "data": [20, 80]},
        ]
    }

    async def work(toy: Toy) -> list[Any]:
        async with (
            listening(toy.gateway, "/toy", lanes=toy.service if lanes else None) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/toy", headers={"authorization": "Bearer alice"}) as c,
        ):
            return [
                (await c.post("/v1/decisions?explain=true", content=body(20, 80))).content,
                (await c.post("/v2/models/toy/infer", json=tensors | {"parameters": {"explain": True}})).json(),
                (await c.post("/v2/models/toy/infer", json=tensors)).json(),
                (await c.post("/v2/models/toy/infer", json=tensors | {"parameters": {"explain": 1}})).json(),
            ]

    told, explained, plain, wrong = Toy(tmp_path, explaining=explains(by_permutations)).call(work)
    decisions = msgspec.json.decode(told, type=Decisions).decisions
    assert [len(decision.reasons) <= REASONS for decision in decisions] == [True, True]
    assert [d.explanation.method for d in decisions if d.explanation] == ["permutation_shapley"] * 2
    assert explained["parameters"]["reasons"] == [json.loads(msgspec.json.encode(d.reasons)) for d in decisions]
    assert explained["parameters"]["explanations"][0]["method"] == "permutation_shapley"
    assert "reasons" not in plain["parameters"]
    assert wrong["field"] == "parameters.explain" if "field" in wrong else "parameters.explain" in wrong["error"]


def test_a_handle_asks_by_the_same_query(tmp_path: Path) -> None:
    from headway.serving.replica import Replica

    toy = Toy(tmp_path, explaining=explains(by_permutations))
    replica = Replica("/toy", cast(Any, SimpleNamespace(service=toy.service, inference=toy.inference)))
    status, answer = toy.call(lambda _: replica.respond("POST", PATH, body(20), token="alice"))
    assert status == 200
    assert json.loads(answer)["decisions"][0]["explanation"]["method"] == "permutation_shapley"


def test_grpc_asks_by_a_parameter(tmp_path: Path) -> None:
    toy = Toy(tmp_path, explaining=explains(by_permutations))

    async def work(t: Toy) -> tuple[Any, Any, Any]:
        asked, wrong = infer(), infer()
        asked.parameters["explain"].bool_param = True
        wrong.parameters["explain"].string_param = "true"
        first, second, third = [
            await t.inference.answer("ModelInfer", message.SerializeToString(), metadata(), None)
            for message in (asked, wrong, infer())
        ]
        return first, second, third

    told, wrong, plain = toy.call(work)
    parameters = RESPONSES["ModelInfer"].FromString(told.message).parameters
    reasons, how = (json.loads(parameters[name].string_param) for name in ("reasons", "explanations"))
    assert [one["method"] for one in how] == ["permutation_shapley"] * 2
    for each, explanation in zip(reasons, how, strict=True):
        total = explanation["base"] + explanation["others"] + sum(reason["contribution"] for reason in each)
        assert total == pytest.approx(explanation["margin"])
    assert wrong.status.code == "INVALID_ARGUMENT"
    assert "reasons" not in RESPONSES["ModelInfer"].FromString(plain.message).parameters
