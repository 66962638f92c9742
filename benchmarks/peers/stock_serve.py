"""Ray Serve as it comes: default proxy, one replica, the same model and request as plain FastAPI.

One option differs from the default: a replica takes 100 requests at once instead of 5. With 5, more connections wait in
the router with growing pauses, and throughput collapses to a few requests per second.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np


def main() -> None:
    """Serve on the given port until standard input closes; print `ready` once it answers."""
    port, model, temporary = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    import ray
    import xgboost
    from ray import serve

    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 * 2**20, _temp_dir=temporary)
    serve.start(http_options={"host": "127.0.0.1", "port": port})

    class Predict:
        def __init__(self, path: str) -> None:
            self.booster = xgboost.Booster({"nthread": 1})
            self.booster.load_model(path)

        async def __call__(self, request: Any) -> dict[str, float]:
            rows = await request.json()
            score = self.booster.inplace_predict(np.array([rows["features"]], dtype=np.float32))
            return {"score": float(score[0])}

    serve.run(serve.deployment(Predict, max_ongoing_requests=100).bind(model), name="stock", route_prefix="/predict")
    time.sleep(1.0)
    print("ready", flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    main()
