from __future__ import annotations

import re
import urllib.request
from typing import Any

import pytest

from headway.core.telemetry.instruments import Instrument, Kind, Table
from headway.core.telemetry.ray_metrics import RayMetrics
from tests.features.streams.world import until

SECONDS = Instrument(name="headway_sample_seconds", kind=Kind.HISTOGRAM, help="time", labels=("who",))
TOTAL = Instrument(name="headway_sample_total", kind=Kind.COUNTER, help="count", labels=("who",))
ROWS = Instrument(name="headway_sample_rows", kind=Kind.GAUGE, help="level", labels=())


def shown(port: int) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    lines = re.findall(r"^ray_(headway_sample_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    return {(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)).get("le", "")): float(v) for name, labels, v in lines}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_prometheus_sees_counters_that_grow_and_histograms_under_their_usual_names() -> None:
    import ray

    class Showing:
        def __init__(self) -> None:
            self.table, self.metrics = Table(), RayMetrics()

        def round(self) -> None:
            self.table.add(TOTAL, 2, "a")
            self.table.set(ROWS, 5)
            self.table.observe(SECONDS, [0.5, 3.0], (1.0, 2.0), "a")
            self.metrics.show(self.table)

        def again(self) -> None:
            self.metrics.show(self.table)

    actor: Any = ray.remote(Showing).remote()
    port = ray.nodes()[0]["MetricsExportPort"]
    wanted = {
        ("headway_sample_total", ""): 6, ("headway_sample_rows", ""): 5,
        ("headway_sample_seconds_bucket", "1"): 3, ("headway_sample_seconds_bucket", "2"): 3,
        ("headway_sample_seconds_bucket", "+Inf"): 6,
        ("headway_sample_seconds_sum", ""): 10.5, ("headway_sample_seconds_count", ""): 6,
    }  # fmt: skip
    try:
        for _ in range(3):
            ray.get(actor.round.remote())

        def seen() -> bool:
            ray.get(actor.again.remote())
            return shown(port) == wanted

        until(seen)
    finally:
        ray.kill(actor)
