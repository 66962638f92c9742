"""KServe's client over gRPC: `kserve_grpc.py HOST:PORT MODEL TOKEN`; prints what came back as JSON."""

import asyncio
import json
import sys

import grpc
import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient

url, model, token = sys.argv[1:]
COLUMNS = (
    ("customer_id", "INT64", np.array([[5], [6]], np.int64)),
    ("shop", "BYTES", np.array([["a"], ["a"]], dtype=object)),
    ("amount", "FP32", np.array([[20.0], [80.0]], np.float32)),
)


def request(binary: bool) -> InferRequest:
    inputs = []
    for name, datatype, values in COLUMNS:
        one = InferInput(name, list(values.shape), datatype)
        one.set_data_from_numpy(values, binary_data=binary)
        inputs.append(one)
    return InferRequest(model_name=model, infer_inputs=inputs, request_id=f"mine-{binary}")


async def main() -> dict:
    headers = (("authorization", f"Bearer {token}"), ("application", model))
    async with InferenceGRPCClient(url, timeout=20) as client:
        found = {
            "live": await client.is_server_live(headers=headers),
            "ready": await client.is_server_ready(headers=headers),
            "model_ready": await client.is_model_ready(model, headers=headers),
        }
        for name, binary in (("typed", False), ("raw", True)):
            answer = await client.infer(request(binary), headers=headers)
            found[name] = {output.name: np.ravel(output.as_numpy()).astype(str).tolist() for output in answer.outputs}
            found[f"{name}_id"] = answer.id
        try:
            await client.infer(request(True), headers=headers[1:])
        except grpc.RpcError as error:
            found["no_token"] = [error.code().name, dict(error.trailing_metadata())["error-code"]]
    return found


sys.stdout.write(json.dumps(asyncio.run(main())))
