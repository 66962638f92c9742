"""LitServe and XGBoost: one worker process, access log off. `python litserve_app.py PORT MODEL`."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np
import xgboost


class Predict(litserve.LitAPI):
    """Decode, predict and encode, as LitServe asks for."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model in the worker."""
        self.booster = xgboost.Booster({"nthread": 1})
        self.booster.load_model(sys.argv[2])

    def decode_request(self, request, **_):  # LitServe reads annotations: none means JSON
        """Return the row as a matrix."""
        return np.array([request["features"]], dtype=np.float32)

    def predict(self, x: Any, **_: Any) -> Any:
        """Return the scores."""
        return self.booster.inplace_predict(x)

    def encode_response(self, output: Any, **_: Any) -> dict[str, float]:
        """Return the answer."""
        return {"score": float(output[0])}


if __name__ == "__main__":
    server = litserve.LitServer(Predict(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
