"""NVIDIA's client against a use case: `triton.py HOST:PORT/PREFIX MODEL TOKEN`; prints what came back as JSON."""

import json
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

url, model, token = sys.argv[1:]

client = triton.InferenceServerClient(url=url)
cards = np.array([[5], [6]], np.int64)
shops = np.array([["a"], ["a"]], dtype=object)
amounts = np.array([[20.0], [80.0]], np.float32)


def headers() -> dict[str, str]:
    """A fresh one per call: the client writes into it."""
    return {"authorization": f"Bearer {token}"}


def inputs(binary: bool) -> list[triton.InferInput]:
    made = []
    for name, values, datatype in (
        ("customer_id", cards, "INT64"),
        ("shop", shops, "BYTES"),
        ("amount", amounts, "FP32"),
    ):
        one = triton.InferInput(name, values.shape, datatype)
        one.set_data_from_numpy(values, binary_data=binary)
        made.append(one)
    return made


def scores(binary: bool, wanted: list[triton.InferRequestedOutput] | None) -> list[float]:
    answer = client.infer(model, inputs(binary), outputs=wanted, headers=headers(), request_id=f"mine-{binary}")
    assert answer.get_response()["id"] == f"mine-{binary}"
    assert [text.decode() if isinstance(text, bytes) else text for text in answer.as_numpy("label").ravel()] == [
        "low",
        "high",
    ]
    return answer.as_numpy("score").ravel().tolist()


named = [triton.InferRequestedOutput(name, binary_data=False) for name in ("score", "label")]
found = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": client.is_model_ready(model),
    "version_ready": client.is_model_ready(model, "7"),
    "server": client.get_server_metadata(headers=headers()),
    "model": client.get_model_metadata(model, headers=headers()),
    "index": client.get_model_repository_index(headers=headers()),
    "raw": scores(True, None),
    "json": scores(False, named),
}
for name, act in {
    "no_token": lambda: client.infer(model, inputs(True)),
    "no_model": lambda: client.infer("nobody", inputs(True), headers=headers()),
    "no_input": lambda: client.infer(model, inputs(True)[:1], headers=headers()),
}.items():
    try:
        act()
        found[name] = "answered"
    except InferenceServerException as error:
        found[name] = [error.status(), error.message()]
sys.stdout.write(json.dumps(found))
