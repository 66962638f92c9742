"""Our batcher beside Ray's `serve.batch`, in one replica, around the same model: what a batcher itself costs.

`serve.batch` runs as it comes (10 rows, 10 ms), and with our bound on rows and no wait.
"""

from __future__ import annotations

import json

import numpy as np

from benchmarks.batcher_replica import OURS, STOCK, TASKS, TUNED
from benchmarks.harness import Collector
from benchmarks.serving.ours import Ours, on_platform


def beside_serve_batch(collector: Collector, ours: Ours, *, quick: bool) -> str:
    """Record both and return the ratios in words."""
    rows = ours.work / "rows.npy"
    np.save(rows, np.array(ours.stage.features, dtype=np.float32))
    runs, seconds = (1, 0.5) if quick else (5, 1.0)
    model = ours.stage.model.with_suffix(".onnx")
    said = on_platform(ours.stage, "benchmarks.batcher_replica", str(model), str(rows), str(runs), str(seconds))
    found: dict[str, dict[str, list[tuple[float, float]]]] = json.loads(said.splitlines()[-1])
    words = []
    for tasks in TASKS:
        case = f"{tasks} tasks in one replica"
        for name in (OURS, TUNED, STOCK):
            collector.add(name, case, "throughput", "rows/s", [rate for rate, _ in found[name][str(tasks)]])
            collector.add(name, case, "p50", "ms", [p50 for _, p50 in found[name][str(tasks)]])
        pairs = zip(found[OURS][str(tasks)], found[TUNED][str(tasks)], strict=True)
        ratio = collector.add(OURS, case, f"throughput over {TUNED}", "times", [a[0] / b[0] for a, b in pairs])
        words.append(f"{ratio:.2f} times the rows/s of {TUNED} with {tasks} tasks")
    return ", ".join(words)
