"""KServe's client against a use case: `kserve_v2.py URL MODEL TOKEN`; prints what came back as JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferInput, InferRequest, InferResponse
from kserve.inference_client import InferenceRESTClient, RESTConfig

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
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
    headers = {"authorization": f"Bearer {token}"}
    found = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, model),
    }
    for name, binary in (("json", False), ("raw", True)):
        answer = await client.infer(url, request(binary), model_name=model, headers=dict(headers))
        assert isinstance(answer, InferResponse)
        found[name] = {output.name: np.ravel(output.as_numpy()).astype(str).tolist() for output in answer.outputs}
        found[f"{name}_id"] = answer.id
    return found


sys.stdout.write(json.dumps(asyncio.run(main())))
