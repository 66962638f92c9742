"""Calls of the toy use case over gRPC, through the server that Serve runs in a replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from ray.serve._private.grpc_util import start_grpc_server
from ray.serve.config import gRPCOptions

from headway.core.ray_session import GRPC_SERVICER
from headway.serving import hook
from headway.serving.grpc import ingress
from headway.serving.grpc.messages import REQUESTS, RESPONSES, SERVICE
from headway.serving.grpc.protocol import _CONTENTS
from headway.serving.grpc.servicer import InferenceServicer
from headway.serving.tensors import to_raw
from tests.ports import free_ports

ROWS: dict[str, tuple[str, Sequence[Any]]] = {
    "customer_id": ("INT64", [5, 6]),
    "shop": ("BYTES", ["a", "ä"]),
    "amount": ("FP32", [20.0, 80.0]),
}


def infer(
    columns: Mapping[str, tuple[str, Sequence[Any]]] = ROWS, *, raw: bool = False, model: str = "toy", **fields: Any
) -> Any:
    """Return a ModelInferRequest."""
    message = REQUESTS["ModelInfer"](model_name=model, **fields)
    for name, (datatype, values) in columns.items():
        tensor = message.inputs.add(name=name, datatype=datatype, shape=(len(values), 1))
        if raw:
            message.raw_input_contents.append(to_raw(datatype, values))
        else:
            typed = [value.encode() if isinstance(value, str) else value for value in values]
            getattr(tensor.contents, _CONTENTS[datatype]).extend(typed)
    return message


def metadata(token: str | None = "alice", **others: str) -> list[tuple[str, str]]:
    """Return what a caller sends beside the message; underscores become dashes."""
    said = [] if token is None else [("authorization", f"Bearer {token}")]
    return said + [(name.replace("_", "-"), value) for name, value in others.items()]


async def send(
    port: int, method: str, message: Any, said: Sequence[tuple[str, str]] = (), *, timeout_s: float = 10.0
) -> Any:
    """Call a server and return the parsed answer; raises grpc.aio.AioRpcError."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda item: item.SerializeToString(),
            response_deserializer=RESPONSES[method].FromString,
        )
        return await call(message, metadata=tuple(said), timeout=timeout_s)


@asynccontextmanager
async def listening(**servicers: InferenceServicer) -> AsyncIterator[int]:
    """Serve's own gRPC server of a replica, with the servicers of these applications; yields its port."""

    def serves_way(service_method: str, streaming_type: Any) -> Any:
        async def handle(message: bytes, context: Any) -> bytes:
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            context.set_details(f"Serve's own way: {service_method}")
            return b""

        return handle

    (port,) = free_ports(1)
    loop = asyncio.get_running_loop()
    options = gRPCOptions(port=port, grpc_servicer_functions=[GRPC_SERVICER], enable_reflection=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(hook.SWITCH, hook.IMPORT_PATH)
        for name, servicer in servicers.items():
            ingress.register(name, servicer, loop)
        task, server = await start_grpc_server(serves_way, options, event_loop=loop)
        try:
            yield port
        finally:
            for name in servicers:
                ingress.unregister(name)
            await server.stop(0)
            await task
