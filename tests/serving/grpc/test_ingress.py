from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from headway.core.ray_session import GRPC_MESSAGE_BYTES
from headway.serving import hook
from headway.serving.gateway import BODY_LIMIT
from headway.serving.grpc import ingress
from headway.serving.grpc.messages import METHODS, REQUESTS, RESPONSES
from headway.serving.grpc.servicer import InferenceServicer
from tests.serving.grpc.helpers import infer, listening, metadata, send
from tests.serving.helpers import Toy, schema

LIVE = REQUESTS["ServerLive"]()


def test_a_call_is_answered_with_its_request_id(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        async with listening(toy=toy.inference) as port:
            answer = await send(port, "ModelInfer", infer(raw=True), metadata(x_request_id="r-1"))
            assert answer.model_name == "toy"
            assert (await send(port, "ServerLive", LIVE)).live
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(
                    b"", metadata=(("x-request-id", "r-2"),)
                )
                assert RESPONSES["ServerLive"].FromString(await call).live
                assert dict(await call.trailing_metadata())["x-request-id"] == "r-2"

    Toy(tmp_path).call(work)


def test_the_application_is_chosen_by_metadata(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        second = InferenceServicer("second", schema, toy.service)
        async with listening(toy=toy.inference, second=second) as port:
            for application in ("toy", "second"):
                said = metadata(application=application)
                answer = await send(port, "ModelInfer", infer(model=application), said)
                assert answer.model_name == application
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await send(port, "ModelInfer", infer(model="toy"), metadata(application="second"))
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
            for said in (metadata(), metadata(application="third")):
                with pytest.raises(grpc.aio.AioRpcError, match="Serve's own way"):
                    await send(port, "ModelInfer", infer(), said)

    Toy(tmp_path).call(work)


def test_without_the_hook_and_on_another_loop_serve_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(toy: Toy) -> None:
        async with listening(toy=toy.inference) as port:
            other = asyncio.new_event_loop()
            ingress.register("toy", toy.inference, other)
            with pytest.raises(grpc.aio.AioRpcError, match="Serve's own way"):
                await send(port, "ServerLive", LIVE)
            other.close()
        monkeypatch.setattr(hook, "enabled", lambda: False)
        async with listening(toy=toy.inference) as port:
            for method in METHODS:
                with pytest.raises(grpc.aio.AioRpcError, match=f"Serve's own way.*{method}"):
                    await send(port, method, REQUESTS[method]())

    Toy(tmp_path).call(work)


def test_a_refusal_has_a_code_a_text_and_metadata(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        async with listening(toy=toy.inference) as port:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await send(port, "ModelInfer", infer(model="ä" * 2_000), metadata(x_request_id="r"))
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
            said = dict(refused.value.trailing_metadata())
            assert (said["x-request-id"], said["error-code"]) == ("r", "not_found")

    Toy(tmp_path).call(work)


def test_cancelled_calls_and_short_deadlines_wedge_nobody(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        async with listening(toy=toy.inference) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            body = infer().SerializeToString()
            calls = [method(body, metadata=tuple(metadata()), timeout=0.001 if i % 2 else None) for i in range(60)]
            await asyncio.sleep(0.002)
            for call in calls[::2]:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert len(ended) == 60
            assert (await send(port, "ModelInfer", infer(), metadata())).model_name == "toy"
            await toy.batcher.idle()
            assert toy.batcher.queued_rows == 0

    Toy(tmp_path).call(work)


def test_serve_refuses_what_the_gateway_would() -> None:
    assert GRPC_MESSAGE_BYTES == BODY_LIMIT


class Replica(ingress.InferenceMethods):
    """What Serve's own path calls."""

    def __init__(self, servicer: InferenceServicer | None) -> None:
        self._found = servicer

    def _servicer(self) -> InferenceServicer | None:
        return self._found


class ServeContext:
    """The context that Serve gives to methods, with what is called of it."""

    def __init__(self, said: list[tuple[str, str]]) -> None:
        self._said = said
        self.code: Any = None
        self.details = ""
        self.trailing: list[tuple[str, str]] = []

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._said

    def set_code(self, code: Any) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailing: list[tuple[str, str]]) -> None:
        self.trailing = [("request_id", "serve"), *trailing]


def test_serves_own_path_ends_in_the_same_servicer(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        context = ServeContext(metadata(x_request_id="r"))
        answer = await Replica(toy.inference).ModelInfer(infer().SerializeToString(), context)
        assert RESPONSES["ModelInfer"].FromString(answer.SerializeToString()).model_name == "toy"
        assert (context.code, ("x-request-id", "r") in context.trailing) == (None, True)
        context = ServeContext([])
        answer = await Replica(toy.inference).ModelInfer(infer().SerializeToString(), context)
        assert (answer.SerializeToString(), context.code) == (b"", grpc.StatusCode.UNAUTHENTICATED)
        for method in METHODS:
            context = ServeContext([])
            await getattr(Replica(None), method)(b"", context)
            assert context.code == grpc.StatusCode.UNIMPLEMENTED

    Toy(tmp_path).call(work)
