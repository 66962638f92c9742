"""MLServer with its XGBoost runtime, in one process: its own way to serve a model file, features in the request.

`python mlserver_app.py PORT MODEL`. Access log, metrics and the pool of workers are off: inference runs in the server.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Write the folder that MLServer reads, and become MLServer."""
    port, model = int(sys.argv[1]), sys.argv[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        grpc = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="ml"))
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc,
        "metrics_endpoint": None,
        "debug": False,
        "parallel_workers": 0,
    }
    model_settings = {
        "name": "model",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": model},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model_settings))
    program = str(Path(sys.executable).with_name("mlserver"))
    os.chdir(folder)
    os.execv(program, [program, "start", str(folder)])


if __name__ == "__main__":
    main()
