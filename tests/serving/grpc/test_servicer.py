from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headway.serving.gateway import BODY_LIMIT
from headway.serving.grpc.messages import REQUESTS, RESPONSES
from headway.serving.grpc.servicer import Reply
from headway.serving.host import HostState
from tests.core.telemetry.collector import collecting, values
from tests.serving.grpc.helpers import ROWS, infer, metadata
from tests.serving.helpers import FakeHost, Toy
from tests.serving.test_tracing import PARENT, SAMPLED, STAGES, TRACE, sent, traced


async def ask(
    toy: Toy,
    method: str = "ModelInfer",
    message: Any = None,
    said: list[tuple[str, str]] | None = None,
    remaining_s: float | None = None,
) -> tuple[str, Any, Reply]:
    """Return the code, the parsed answer and the reply."""
    body = (infer() if message is None else message).SerializeToString()
    reply = await toy.inference.answer(method, body, metadata() if said is None else said, remaining_s)
    return reply.status.code, RESPONSES[method].FromString(reply.message), reply


def asked(method: str, **fields: Any) -> Any:
    return REQUESTS[method](**fields)


def test_a_decision_is_made_logged_and_counted(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    code, answer, reply = toy.call(lambda toy: ask(toy, message=infer(id="mine"), said=metadata(x_request_id="r 1")))
    assert (code, reply.request_id, answer.id) == ("OK", "r1", "mine")
    assert list(answer.outputs[0].contents.fp32_contents) == pytest.approx([0.2, 0.8])
    assert list(answer.outputs[1].contents.bytes_contents) == [b"low", b"high"]
    assert [batch.calls for batch in toy.recorder.batches] == [[("alice", "r1", 2)]]
    assert toy.model.counted == 2


def test_health_needs_no_token_and_the_rest_does(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        for method, fields, name in [
            ("ServerLive", {}, "live"),
            ("ServerReady", {}, "ready"),
            ("ModelReady", {"name": "toy"}, "ready"),
            ("ModelReady", {"name": "toy", "version": "7"}, "ready"),
        ]:
            code, answer, _ = await ask(toy, method, asked(method, **fields), [])
            assert (code, getattr(answer, name)) == ("OK", True)
        for method in ("ServerMetadata", "ModelMetadata", "RepositoryIndex", "ModelInfer"):
            for said, code in [
                ([], "UNAUTHENTICATED"),
                ([("authorization", "Basic alice")], "UNAUTHENTICATED"),
                (metadata("forged"), "UNAUTHENTICATED"),
                (metadata("nobody"), "PERMISSION_DENIED"),
                (metadata("stranger"), "PERMISSION_DENIED"),
            ]:
                assert (await ask(toy, method, asked(method), said))[0] == code

    Toy(tmp_path).call(work)


def test_what_there_is(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        _, server, _ = await ask(toy, "ServerMetadata", asked("ServerMetadata"))
        assert (server.name, list(server.extensions)) == ("headway", ["model_repository"])
        _, model, _ = await ask(toy, "ModelMetadata", asked("ModelMetadata", name="toy", version="7"))
        assert (model.name, list(model.versions), model.platform) == ("toy", ["7"], "headway")
        assert [(item.name, item.datatype, list(item.shape)) for item in model.inputs] == [
            ("customer_id", "INT64", [-1, 1]),
            ("shop", "BYTES", [-1, 1]),
            ("amount", "FP32", [-1, 1]),
            ("event_time", "INT64", [-1, 1]),
        ]
        _, index, _ = await ask(toy, "RepositoryIndex", asked("RepositoryIndex"))
        assert [(item.name, item.version, item.state) for item in index.models] == [("toy", "7", "READY")]

    Toy(tmp_path).call(work)


def test_what_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(toy: Toy) -> None:
        for method, message in [
            ("ModelReady", asked("ModelReady", name="other")),
            ("ModelReady", asked("ModelReady", name="toy", version="8")),
            ("ModelMetadata", asked("ModelMetadata", name="")),
            ("ModelInfer", infer(model="other")),
            ("ModelInfer", infer(model_version="8")),
        ]:
            assert (await ask(toy, method, message))[0] == "NOT_FOUND"
        monkeypatch.setattr(FakeHost, "ready", False)
        monkeypatch.setattr(FakeHost, "state", HostState(generation=3, champion=None, previous=None, error="gone"))
        for method in ("ServerReady", "ModelReady"):
            code, answer, _ = await ask(
                toy, method, asked(method, **({"name": "toy"} if method == "ModelReady" else {}))
            )
            assert (code, answer.ready) == ("OK", False)
        _, index, _ = await ask(toy, "RepositoryIndex", asked("RepositoryIndex"))
        assert [(item.state, item.reason) for item in index.models] == [("UNAVAILABLE", "gone")]
        _, index, _ = await ask(toy, "RepositoryIndex", asked("RepositoryIndex", ready=True))
        assert not index.models

    Toy(tmp_path).call(work)


def test_bad_input_names_the_tensor_and_harms_nobody(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        bad = infer({**ROWS, "amount": ("FP32", [1.0, float("inf")])})
        good, refused = await asyncio.gather(ask(toy), ask(toy, message=bad))
        assert (good[0], refused[0]) == ("OK", "INVALID_ARGUMENT")
        assert refused[2].status.details.startswith("inputs[2].contents[1]: ")
        assert dict(refused[2].status.trailing)["error-code"] == "not_finite"
        reply = await toy.inference.answer("ModelInfer", b"\xff", metadata(), None)
        assert reply.status.code == "INVALID_ARGUMENT"
        long = await toy.inference.answer("ModelInfer", bytes(BODY_LIMIT + 1), metadata(), None)
        assert (long.status.code, dict(long.status.trailing)["error-code"]) == ("INVALID_ARGUMENT", "too_large")

    Toy(tmp_path).call(work)


def test_a_time_of_ones_own_needs_the_scope(tmp_path: Path) -> None:
    timed = infer({**ROWS, "event_time": ("INT64", [1_700_000_000_000_000] * 2)})

    async def work(toy: Toy) -> None:
        assert (await ask(toy, message=timed))[0] == "PERMISSION_DENIED"
        assert (await ask(toy, message=timed, said=metadata("replayer")))[0] == "OK"

    Toy(tmp_path).call(work)


def test_a_quota_and_an_overload_say_when_to_come_back(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        twice = {name: (kind, [*values, *values]) for name, (kind, values) in ROWS.items()}
        code, _, reply = await ask(toy, message=infer(twice))
        assert (code, reply.status.trailing[-1]) == ("UNAVAILABLE", ("retry-after", "1"))
        codes = [(await ask(toy)) for _ in range(3)]
        assert [code for code, _, _ in codes] == ["OK", "OK", "RESOURCE_EXHAUSTED"]
        assert int(dict(codes[2][2].status.trailing)["retry-after"]) >= 1

    Toy(tmp_path, rate=0.001, burst=4, max_queued_rows=3).call(work)


def test_who_waits_for_less_than_the_contract_promises_burns_no_budget(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        twice = {name: (kind, [*values, *values]) for name, (kind, values) in ROWS.items()}
        for remaining_s in (1e-6, 60.0):
            reply = await toy.inference.answer("ModelInfer", infer(twice).SerializeToString(), metadata(), remaining_s)
            assert reply.status.code == "UNAVAILABLE"
        noted = {status: len(seconds) for (_, _, status), seconds in toy.meter.take().requests.items()}
        assert noted == {499: 1, 503: 1}

    Toy(tmp_path, max_queued_rows=3).call(work)


def test_what_breaks_inside_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(token: str) -> Any:
        raise RuntimeError("secret inside")

    async def work(toy: Toy) -> None:
        monkeypatch.setattr(toy.verifier, "verify", broken)
        code, _, reply = await ask(toy)
        assert (code, reply.message) == ("INTERNAL", b"")
        assert "secret" not in str(reply.status)

    Toy(tmp_path).call(work)


def test_the_same_key_gets_the_first_answer(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        first, second = await asyncio.gather(*(ask(toy, said=metadata(idempotency_key="k")) for _ in range(2)))
        assert first[2].message == second[2].message
        third = await ask(toy, message=infer(id="k"), said=metadata())
        assert third[0] == "ALREADY_EXISTS"
        for key in ("", "x" * 129):
            assert (await ask(toy, said=metadata(idempotency_key=key)))[0] == "INVALID_ARGUMENT"

    toy = Toy(tmp_path)
    toy.call(work)
    assert toy.model.counted == 2


def test_the_answer_to_a_key_outlives_its_first_caller(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        first = asyncio.create_task(ask(toy, said=metadata(idempotency_key="k")))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await ask(toy, said=metadata(idempotency_key="k")))[0] == "OK"

    toy = Toy(tmp_path)
    toy.call(work)
    assert toy.model.counted == 2, "decided once"


def test_who_is_gone_is_not_decided_and_wedges_nobody(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        gone = [asyncio.create_task(ask(toy)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        assert (await ask(toy))[0] == "OK"
        await asyncio.gather(*gone, return_exceptions=True)
        await toy.batcher.idle()
        assert toy.batcher.queued_rows == 0
        assert (await ask(toy))[0] == "OK"

    toy = Toy(tmp_path)
    toy.call(work)
    assert toy.model.counted == 4


def test_a_short_deadline_is_told_at_once_and_a_long_one_is_the_services(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        code, _, reply = await ask(toy, remaining_s=-0.001)
        assert (code, "may wait" in reply.status.details) == ("UNAVAILABLE", True)
        assert "retry-after" in dict(reply.status.trailing)
        assert (await ask(toy, remaining_s=1e9))[0] == "OK"

    toy = Toy(tmp_path)
    toy.call(work)
    assert toy.model.counted == 2


def test_calls_are_counted_like_those_of_http(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        await ask(toy)
        await ask(toy, said=[])
        await ask(toy, message=infer(model="other"))
        await ask(toy, "ServerLive", asked("ServerLive"), [])

    toy = Toy(tmp_path)
    toy.call(work)
    notes = toy.meter.take()
    assert {key: len(seconds) for key, seconds in notes.requests.items()} == {
        ("grpc", "infer", 200): 1,
        ("grpc", "infer", 401): 1,
        ("grpc", "infer", 404): 1,
        ("grpc", "health", 200): 1,
    }
    assert (len(notes.decode), len(notes.encode)) == (1, 1)


def test_a_call_belongs_to_its_callers_trace(tmp_path: Path) -> None:
    with collecting() as collector:
        toy = traced(tmp_path, collector)
        _, _, reply = toy.call(lambda toy: ask(toy, said=[*metadata(x_request_id="r"), *SAMPLED.items()]))
        sent(toy, 2)
        (server,) = collector.named("POST /v2/models/toy/infer")
        assert (server.trace_id.hex(), server.parent_span_id.hex(), server.trace_state) == (TRACE, PARENT, "vendor=1")
        assert dict(reply.trailing)["traceresponse"] == f"00-{TRACE}-{server.span_id.hex()}-01"
        assert values(server.attributes)["headway.protocol"] == "grpc"
        stages = [span.name for span in collector.spans if span.parent_span_id == server.span_id]
        assert stages == STAGES
