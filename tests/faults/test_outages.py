"""Faults of what a stream needs: servers, catalog, disk, and its own process."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from headway.core.errors import Unavailable
from headway.features.lake.tables import Location
from headway.features.streams.drivers.redis import RedisStream
from tests.faults.running import Place, Running, payments_now, until
from tests.faults.scorecard import Record, record
from tests.features.lake.troubles import filled, held
from tests.features.streams.world import TOPIC
from tests.features.valkey import DURABLE, Valkey


@pytest.fixture
def place(topics: Valkey, features: Valkey, lake: Location) -> Place:
    return Place(features.url, lake, stream=topics.url, control=topics.url)


def test_the_catalog_cannot_be_reached(place: Place, tmp_path: Path, record_property: Record) -> None:
    with Running(place) as running:
        running.publish(payments_now(0, 300))
        running.until_safe()
        with held(tmp_path / "c.db"):
            running.publish(payments_now(300, 2_000))
            time.sleep(3.0)
        seconds = running.until_safe()
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="the catalog cannot be reached", sent=2_300, unit="events", lost=lost,
        twice=twice, seconds=seconds, done="another process holds its lock for 3 s and more; the stream is the buffer",
    )  # fmt: skip


def test_the_disk_of_the_lake_is_full(topics: Valkey, features: Valkey, small: Path, record_property: Record) -> None:
    lake = Location(catalog_uri=f"sqlite:///{small}/c.db", warehouse=f"file://{small}/w")
    place = Place(features.url, lake, stream=topics.url, control=topics.url)
    with Running(place) as running:
        running.publish(payments_now(0, 300))
        running.until_safe()
        with filled(small):
            running.publish(payments_now(300, 2_000))
            time.sleep(3.0)
            assert place.world().checkpoint().offset == 300, "nothing of it counts as written"
        seconds = running.until_safe()
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="disk full under the lake", sent=2_300, unit="events", lost=lost,
        twice=twice, seconds=seconds, done="full for 3 s while events come; features go on, the lake waits",
    )  # fmt: skip


def test_the_disk_of_the_topics_is_full(features: Valkey, lake: Location, small: Path, record_property: Record) -> None:
    """Its server ends rather than promise what it cannot write; what it refused is not there after the next start."""
    server = Valkey(small, *DURABLE)
    server.start()
    stream, number, refused = RedisStream(server.url), 300, False
    topic = stream.create(TOPIC, partitions=1)
    place = Place(features.url, lake, stream=server.url, control=server.url)
    try:
        with Running(place) as running:
            running.publish(payments_now(0, number))
            running.until_safe()
            with filled(small):
                while not refused:
                    try:
                        running.publish(payments_now(number, 100))
                        number += 100
                    except Unavailable:
                        refused = True
                time.sleep(1.0)
            server.kill()
            server.start()
            assert stream.bounds(topic, 0).end == number
            running.publish(payments_now(number, 500))
            seconds = running.until_safe()
            lost, twice = running.balance()
    finally:
        server.kill()
    record(
        record_property, area="streams", fault="disk full under topics and checkpoints", sent=number + 500, lost=lost,
        unit="events", twice=twice, seconds=seconds, done="its producer is refused; started again once there is room",
    )  # fmt: skip


def test_the_topic_is_full(place: Place, record_property: Record) -> None:
    """Nobody reads for a while: the producer is refused, and nothing that was taken is dropped."""
    stream = RedisStream(place.stream)
    stream.create(TOPIC, partitions=1, capacity=1_000)
    running, refused, number = Running(place), 0, 0
    while not refused:
        events = payments_now(number, 100)
        try:
            running.publish(events)
            number += len(events)
        except Unavailable:
            refused += 1
    assert number == 1_000
    with running:
        until(lambda: place.world().checkpoint().offset == number)
        running.publish(payments_now(number, 500))
        seconds = running.until_safe()
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="topic full", sent=len(running.sent), unit="events", lost=lost,
        twice=twice, seconds=seconds, done="no processor runs until the producer is refused; then one is started",
    )  # fmt: skip


def test_the_online_store_comes_back_empty(place: Place, features: Valkey, record_property: Record) -> None:
    with Running(place) as running:
        running.publish(payments_now(0, 1_000))
        running.until_safe()
        features.kill()
        running.publish(payments_now(1_000, 500))
        time.sleep(1.0)
        features.start()
        seconds = running.until_safe()
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="the online store loses its state", sent=1_500, unit="events", lost=lost,
        twice=twice, seconds=seconds, done="killed and started empty; filled from the lake before a watermark moves",
    )  # fmt: skip


def test_the_server_of_topics_and_checkpoints_is_killed(place: Place, topics: Valkey, record_property: Record) -> None:
    longest = 0.0
    with Running(place) as running:
        for number in range(3):
            running.publish(payments_now(500 * number, 500))
            topics.kill()
            time.sleep(0.5)
            topics.start()
            longest = max(longest, running.until_safe())
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="the server of topics and checkpoints is killed", sent=1_500, lost=lost,
        unit="events", twice=twice, seconds=longest, done="three times; append-only file, fsync always",
    )  # fmt: skip


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_server_that_stands_still(place: Place, topics: Valkey, features: Valkey, record_property: Record) -> None:
    longest = 0.0
    with Running(place) as running:
        for number, server in enumerate((features, topics)):
            running.publish(payments_now(500 * number, 500))
            server.freeze()
            time.sleep(12.0)  # longer than the time limit of a call
            server.thaw()
            longest = max(longest, running.until_safe())
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="a server stands still", sent=1_000, unit="events", lost=lost,
        twice=twice, seconds=longest, done="online store, then topics, stopped for 12 s with their connections open",
    )  # fmt: skip


def test_the_processor_is_killed(place: Place, record_property: Record) -> None:
    draw, longest = random.Random(3), 0.0
    with Running(place) as running:
        for number in range(3):
            running.publish(payments_now(2_000 * number, 1_000))
            time.sleep(draw.uniform(0.0, 0.5))
            running.kill()
            running.publish(payments_now(2_000 * number + 1_000, 1_000))
            running.start()
            longest = max(longest, running.until_safe())
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="the processor is killed", sent=6_000, unit="events", lost=lost,
        twice=twice, seconds=longest, done="three times while events come (at full load: benchmarks)",
    )  # fmt: skip


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_processor_is_killed_at_any_instruction(place: Place, record_property: Record) -> None:
    """Processes that kill themselves at a random call of a function; each publication is drained by one that lives."""
    draw, deaths, longest = random.Random(5), 0, 0.0
    running = Running(place)
    for number in range(25):
        running.publish(payments_now(400 * number, 400))
        calls = draw.randint(500, 40_000)
        while True:
            began = time.monotonic()
            code = _drain(place, calls)
            longest = max(longest, time.monotonic() - began)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            deaths += 1
            calls += draw.randint(500, 40_000)
    lost, twice = running.balance()
    assert deaths >= 15
    record(
        record_property, area="streams", fault="the processor is killed at any instruction", sent=10_000, unit="events",
        lost=lost, twice=twice, seconds=longest,
        done=f"{deaths} processes ended themselves at random calls of functions",
    )  # fmt: skip


def _drain(place: Place, calls: int) -> int:
    """Process all there is in a process that dies after so many calls; return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.running", "pyiceberg.catalog.sql", "pyiceberg.io.pyarrow"])
    process = context.Process(target=_drain_or_die, args=(place, calls))
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def _drain_or_die(place: Place, calls: int) -> None:
    left = [calls]

    def count(_frame: object, event: str, _argument: object) -> None:
        if event == "call":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    processor = place.world().processor()
    sys.setprofile(count)
    while processor.step():
        pass
    processor.flush()
    sys.setprofile(None)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_burst_of_ten_times_the_rate_for_a_minute(place: Place, record_property: Record) -> None:
    """A topic that holds 5,000 messages: what is beyond is refused and sent again by its producer."""
    stream = RedisStream(place.stream)
    stream.create(TOPIC, partitions=1, capacity=5_000)
    place.limits |= {"batch_rows": 5_000, "catch_up_rows": 20_000, "segment_rows": 20_000, "segment_age": 2_000_000}
    refused = number = 0
    with Running(place) as running:
        for rate, seconds in ((500, 5.0), (5_000, 60.0)):
            began, due = time.monotonic(), time.monotonic()
            while time.monotonic() < began + seconds:
                events = payments_now(number, rate // 50, keys=500, apart=0)
                while True:
                    try:
                        running.publish(events)
                        break
                    except Unavailable:
                        refused += 1
                        time.sleep(0.01)
                number += len(events)
                due += 0.02
                time.sleep(max(0.0, due - time.monotonic()))
        took = running.until_safe()
        lost, twice = running.balance()
    record(
        record_property, area="streams", fault="a tenfold burst for a minute", sent=number, unit="events", lost=lost,
        twice=twice, seconds=took,
        done=f"500, then 5,000 events a second into a topic of 5,000: {refused} publications refused and repeated",
    )  # fmt: skip
