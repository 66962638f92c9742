"""A deployment that measures batchers from inside a replica, since `serve.batch` runs nowhere else.

`python -m benchmarks.batcher_replica HOME PROJECT MODEL ROWS RUNS SECONDS`: MODEL is an ONNX file, ROWS an array of
model input; it prints one JSON object, batcher → tasks → [rows per second, median wait in milliseconds] per run. Tasks
ask for one row each in a closed loop; the executor is the model on the rows of a batch, the same for all.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headway.core.clock import SystemClock
from headway.core.types import Matrix
from headway.models.backends.onnx import OnnxBackend
from headway.serving.batching import MAX_BATCH_ROWS, Batcher

Ask = Callable[[Any], Awaitable[Any]]
OURS, TUNED, STOCK = "headway's batcher", "serve.batch, tuned", "serve.batch, as it comes"
TASKS = (1, 32)


@dataclass(slots=True)
class _Row:
    """One row to score."""

    values: Matrix
    deadline: float = float("inf")
    size: int = 1


class Batchers:
    """The deployment."""

    def __init__(self, model: bytes, rows: Matrix) -> None:
        backend = OnnxBackend(model)
        self._rows = rows
        self._asks = {
            OURS: _our_batcher(backend),
            TUNED: _serve_batch(backend, max_batch_size=MAX_BATCH_ROWS, batch_wait_timeout_s=0.0),
            STOCK: _serve_batch(backend),
        }

    async def measure(self, name: str, tasks: int, seconds: float) -> tuple[float, float]:
        """Return rows per second and the median wait in milliseconds."""
        ask, rows = self._asks[name], self._rows
        waits: list[float] = []
        await ask(rows[0])
        end = time.perf_counter() + seconds

        async def task(index: int) -> None:
            while (start := time.perf_counter()) < end:
                await ask(rows[index % len(rows)])
                waits.append(time.perf_counter() - start)
                index += tasks

        await asyncio.gather(*(task(index) for index in range(tasks)))
        return len(waits) / seconds, float(np.median(waits)) * 1e3


def _our_batcher(model: OnnxBackend) -> Ask:
    async def execute(batch: Sequence[_Row]) -> Sequence[Any]:
        return list(model.predict(np.stack([row.values for row in batch])).tolist())

    batcher: Batcher[_Row, Any] = Batcher(execute, max_rows=MAX_BATCH_ROWS, clock=SystemClock())

    async def ask(values: Matrix) -> Any:
        return await batcher.submit(_Row(values))

    return ask


def _serve_batch(model: OnnxBackend, **options: Any) -> Ask:
    from ray import serve

    async def execute(batch: list[Matrix]) -> list[Any]:
        return list(model.predict(np.stack(batch)).tolist())

    ask: Ask = serve.batch(**options)(execute)
    return ask


def main() -> None:
    """Deploy, measure the batchers in turn, and take the deployment away."""
    from headway.core.platform_state import resolved_settings
    from headway.core.ray_session import start_serve

    home, project, model, rows, runs, seconds = sys.argv[1:7]
    start_serve(resolved_settings(home=home, project=project))
    from ray import serve

    deployment = serve.deployment(
        Batchers, name="batchers", max_ongoing_requests=1_000, ray_actor_options={"num_cpus": 0.2}
    )
    target = deployment.bind(Path(model).read_bytes(), np.load(rows))
    handle = serve.run(target, name="batchers", route_prefix=None)
    found = asyncio.run(_in_turn(handle, int(runs), float(seconds)))
    serve.delete("batchers")
    print(json.dumps(found))


async def _in_turn(handle: Any, runs: int, seconds: float) -> dict[str, dict[int, list[tuple[float, float]]]]:
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for _ in range(runs):
        for tasks in TASKS:
            for name in (OURS, TUNED, STOCK):
                result = await handle.measure.remote(name, tasks, seconds)
                found.setdefault(name, {}).setdefault(tasks, []).append(result)
    return found


if __name__ == "__main__":
    main()
