"""What batching brings: our server with batches of one row against the default, and our batcher beside `serve.batch`.

Both deployments run the same code; one may put only one row into a batch. Compared is the highest rate that each
sustains with a p99 within the contract's, in an open loop: a closed one would give the slower server fewer requests.
"""

from __future__ import annotations

from benchmarks.harness import Collector
from benchmarks.serving.batchers import beside_serve_batch
from benchmarks.serving.ours import HEADWAY, Ours
from benchmarks.serving.sustained import P99_MS, highest
from headway.core.progress import Progress
from headway.serving.batching import MAX_BATCH_ROWS

_ONE = f"{HEADWAY}, batches of one row"
_BAR = 1.6


def measure(collector: Collector, ours: Ours, progress: Progress, *, quick: bool) -> None:
    """Hold the bar on throughput, and record both batchers."""
    with progress.stage("batching") as stage:
        seconds, steps, runs = (2.0, 3, 1) if quick else (4.0, 5, 2)
        case = f"open loop, p99 within {P99_MS:g} ms"
        rates: dict[str, list[float]] = {_ONE: [], HEADWAY: []}
        for _ in range(runs):
            for system, rows in ((_ONE, 1), (HEADWAY, MAX_BATCH_ROWS)):
                ours.deploy(max_batch_rows=rows)
                rates[system].append(highest(ours, seconds=seconds, steps=steps, p99_ms=P99_MS))
        for system, found in rates.items():
            collector.add(system, case, "highest rate", "requests/s", found)
        ratio = collector.add(
            HEADWAY, case, "highest rate over that with batches of one row", "times",
            [many / one for one, many in zip(rates[_ONE], rates[HEADWAY], strict=True)],
        )  # fmt: skip
        collector.hold("highest rate at the same p99, over batches of one row", ratio, "times", ">=", _BAR)
        stage.note(f"{ratio:.2f} times the rate of batches of one row")
    with progress.stage("serve.batch") as stage:
        stage.note(beside_serve_batch(collector, ours, quick=quick))
