"""NVIDIA's client over gRPC: `triton_grpc.py HOST:PORT MODEL TOKEN`; prints what came back as JSON."""

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

url, model, token = sys.argv[1:]

client = triton.InferenceServerClient(url=url)
headers = {"authorization": f"Bearer {token}", "application": model}


def inputs() -> list[triton.InferInput]:
    made = []
    for name, values, datatype in (
        ("customer_id", np.array([[5], [6]], np.int64), "INT64"),
        ("shop", np.array([["a"], ["a"]], dtype=object), "BYTES"),
        ("amount", np.array([[20.0], [80.0]], np.float32), "FP32"),
    ):
        one = triton.InferInput(name, values.shape, datatype)
        one.set_data_from_numpy(values)
        made.append(one)
    return made


answer = client.infer(model, inputs(), headers=headers, request_id="mine", client_timeout=20)
only = client.infer(model, inputs(), outputs=[triton.InferRequestedOutput("label")], headers=headers)
found = {
    "live": client.is_server_live(headers=headers),
    "ready": client.is_server_ready(headers=headers),
    "model_ready": client.is_model_ready(model, headers=headers),
    "version_ready": client.is_model_ready(model, "7", headers=headers),
    "server": client.get_server_metadata(headers=headers, as_json=True),
    "model": client.get_model_metadata(model, headers=headers, as_json=True),
    "index": client.get_model_repository_index(headers=headers, as_json=True),
    "id": answer.get_response().id,
    "score": answer.as_numpy("score").ravel().tolist(),
    "label": [text.decode() for text in answer.as_numpy("label").ravel()],
    "arm": json.loads(answer.get_response().parameters["arm"].string_param),
    "only": [output.name for output in only.get_response().outputs],
}
stranger = {**headers, "authorization": "Bearer forged"}
classes = [triton.InferRequestedOutput("score", class_count=1)]
for name, act in {
    "no_token": lambda: client.infer(model, inputs(), headers={"application": model}),
    "forged": lambda: client.infer(model, inputs(), headers=stranger),
    "no_model": lambda: client.infer("nobody", inputs(), headers=headers),
    "no_input": lambda: client.infer(model, inputs()[:1], headers=headers),
    "classes": lambda: client.infer(model, inputs(), outputs=classes, headers=headers),
    "no_such_method": lambda: client.get_model_config(model, headers=headers),
}.items():
    try:
        act()
        found[name] = "answered"
    except InferenceServerException as error:
        found[name] = [error.status(), error.message()]
found["after"] = client.infer(model, inputs(), headers=headers).as_numpy("score").ravel().tolist()
sys.stdout.write(json.dumps(found))
