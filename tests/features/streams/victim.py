"""A process that feeds lake and online store from every partition of a topic until it is killed."""

from __future__ import annotations

import time

from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.core.errors import Unavailable
from headway.features.lake.tables import Location
from headway.features.streams.drivers import open_stream
from tests.features.streams.world import World


def run(stream_url: str, url: str, lake: Location, partitions: int) -> None:
    """Process for ever; small segments, so that a kill finds every step."""
    world = World(
        url, lake, SystemClock(), open_stream(stream_url), RedisControlStore(url),
        batch_rows=200, segment_rows=900, segment_age=300_000,
    )  # fmt: skip
    processors = [world.processor(partition) for partition in range(partitions)]
    while True:
        for processor in processors:
            try:
                processor.step(0.02)
            except Unavailable:
                time.sleep(0.01)
