from __future__ import annotations

import re
import urllib.request
from functools import partial

import pytest

from headway.features.lake.tables import Location
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.group import start
from tests.features.streams.world import TOPIC, durable_parts, message, payments, until
from tests.features.valkey import Valkey

_LINE = re.compile(r"^ray_(headway_stream_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


def shown(port: int) -> dict[tuple[str, str], float]:
    """Return metric and label (partition or view) → value, of this test's topic."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in _LINE.findall(text):
        given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if given["source"] == TOPIC:
            found[name, given.get("partition") or given["view"]] = float(value)
    return found


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_prometheus_sees_how_each_partition_is(durable: Valkey, lake: Location) -> None:
    import ray

    stream = RedisStream(durable.url)
    topic = stream.create(TOPIC, partitions=2)
    port = ray.nodes()[0]["MetricsExportPort"]
    (actor,) = start(TOPIC, partial(durable_parts, durable.url, lake), 2)
    try:
        until(lambda: len(ray.get(actor.status.remote())) == 2)
        until(lambda: ("headway_stream_failing_seconds", "1") in shown(port))  # from here on it counts
        stream.publish(topic, [*(message(event) for event in payments(0, 30)), (b"k", b"poison")])
        names = ("rows_total", "dead_letters_total")
        until(
            lambda: (
                [sum(shown(port).get((f"headway_stream_{name}", partition), 0) for partition in "01") for name in names]
                == [30, 1]
            )
        )
        until(lambda: shown(port).get(("headway_stream_state_bytes", "activity"), 0) > 0)
        found = shown(port)
        for partition in "01":
            assert found["headway_stream_lag_messages", partition] == 0
            assert found["headway_stream_failing_seconds", partition] == 0
            assert found["headway_stream_watermark_age_seconds", partition] < 60
        durable.kill()
        until(lambda: shown(port)["headway_stream_failing_seconds", "0"] > 0)
    finally:
        ray.kill(actor)
