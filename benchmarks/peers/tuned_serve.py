"""Ray Serve tuned by hand: HAProxy ingress, throughput-optimised, bare ASGI, `serve.batch`, ONNX Runtime.

`python tuned_serve.py PORT MODEL TEMPORARY` serves until standard input closes; prints `ready` once it answers. The
settings are those that were fastest: workers at normal priority, no access log, one HAProxy thread, and HAProxy's
metrics and log off.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

_BLOCK = 20
"""Ports of replicas, after those of HAProxy."""


def main() -> None:
    """Serve."""
    port, model, temporary = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    os.environ.update(_environment(temporary))
    import ray
    from ray import serve

    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 * 2**20, _temp_dir=temporary)
    serve.start(
        http_options={"host": "127.0.0.1", "port": port},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    ingress = serve.ingress(lambda: _application(model))(type("Predict", (), {}))
    deployment = serve.deployment(
        ingress, name="predict", max_ongoing_requests=2_000, logging_config={"enable_access_log": False}
    )
    serve.run(deployment.bind(), name="tuned", route_prefix="/predict")
    print("ready", flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


def _application(path: str) -> Any:
    """Return bare ASGI around the batched model."""
    import msgspec
    import numpy as np
    import onnxruntime
    from ray import serve

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, output = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    decode, encode = msgspec.json.Decoder(dict[str, list[float]]).decode, msgspec.json.Encoder().encode

    async def together(rows: list[list[float]]) -> list[float]:
        (scores,) = session.run(output, {name: np.array(rows, dtype=np.float32)})
        result: list[float] = scores.reshape(len(rows)).tolist()
        return result

    score = serve.batch(max_batch_size=512, batch_wait_timeout_s=0.0)(together)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answer = encode({"score": await score(decode(body)["features"])})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


def _environment(temporary: str) -> dict[str, str]:
    first = _free_block(_BLOCK + 4)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_LOG_TARGET": "/dev/null",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{temporary}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{temporary}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": temporary,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{temporary}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{temporary}/metrics.sock",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(first),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(first + 1),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first + 2),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(first + 3),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first + 4),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 3 + _BLOCK // 2),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first + 4 + _BLOCK // 2),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(first + 3 + _BLOCK),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }


def _free_block(count: int) -> int:
    """Return the first of `count` free ports in a row, below those that the system gives to outgoing connections."""
    for first in range(21_000, 31_000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError(f"no {count} free ports in a row")


if __name__ == "__main__":
    main()
