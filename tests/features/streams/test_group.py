from __future__ import annotations

import dataclasses
from functools import partial
from threading import Lock

import pytest

from headway.core.errors import Unavailable
from headway.core.ray_session import NAMESPACE
from headway.features.definitions import EventSource
from headway.features.ingest import Appender
from headway.features.lake.committer import Batch
from headway.features.lake.tables import Location, TableSpec
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.group import PartitionGroup, actor_name, running, start
from headway.features.streams.parts import Parts
from tests.features.oracle import SOURCE
from tests.features.streams.world import TOPIC, VIEW, durable_parts, durable_world, message, payments, until
from tests.features.valkey import Valkey


class OneAtATime:
    """Serves several threads, as the committer's actor does."""

    def __init__(self, committer: Appender) -> None:
        self._committer, self._lock = committer, Lock()

    def append(self, table: EventSource | TableSpec, data: Batch, batch_id: str) -> int:
        with self._lock:
            return self._committer.append(table, data, batch_id)


def test_a_group_goes_on_after_its_server_was_away(durable: Valkey, lake: Location) -> None:
    stream = RedisStream(durable.url)
    topic = stream.create(TOPIC, partitions=2)
    stream.publish(topic, [message(event) for event in payments(0, 30)])
    seen = durable_world(durable.url, lake)
    group = PartitionGroup(lambda: seen.parts, [0, 1])
    until(lambda: sum(status.progress.rows for status in group.status()) == 30)
    durable.kill()
    until(lambda: {status.state for status in group.status()} == {"waiting"})
    assert all(status.failing_since and status.error for status in group.status())
    durable.start()
    stream = RedisStream(durable.url)
    stream.publish(topic, [message(event) for event in payments(30, 30)])
    until(lambda: sum(status.progress.rows for status in group.status()) == 60)
    until(lambda: [(status.state, status.lag) for status in group.status()] == [("running", 0)] * 2)
    group.stop()
    assert seen.in_lake() == seen.online_ids() == list(range(60))


def test_a_stopped_group_leaves_nothing_pending_and_a_newer_one_fences_the_old(durable: Valkey, lake: Location) -> None:
    stream = RedisStream(durable.url)
    topic = stream.create(TOPIC, partitions=1)
    seen = durable_world(durable.url, lake)
    shared = dataclasses.replace(seen.parts, committer=OneAtATime(seen.parts.committer))
    old = PartitionGroup(lambda: shared, [0])
    until(lambda: bool(old.status()))
    new = PartitionGroup(lambda: shared, [0])
    until(lambda: bool(new.status()))
    stream.publish(topic, [message(event) for event in payments(0, 30)])

    def one_has_it_all() -> bool:
        found = {status.state: status.progress.rows for status in [*old.status(), *new.status()]}
        return "fenced" in found and found.get("running") == 30

    until(one_has_it_all)
    new.stop()
    old.stop()
    assert seen.in_lake() == seen.online_ids() == list(range(30))
    assert seen.checkpoint().rows == 30


def test_what_a_group_is_asked_for_happens_between_two_turns(durable: Valkey, lake: Location) -> None:
    stream = RedisStream(durable.url)
    topic = stream.create(TOPIC, partitions=2)
    seen = durable_world(durable.url, lake)
    group = PartitionGroup(lambda: seen.parts, [0, 1])
    stream.publish(topic, [message(event) for event in payments(0, 30)])
    until(lambda: sum(status.progress.rows for status in group.status()) == 30)
    added = dataclasses.replace(VIEW, name="added")
    group.feed(SOURCE, (VIEW, added))
    until(lambda: seen.online_ids(added) == list(range(30)))
    assert group.skip() == 0
    group.stop()
    with pytest.raises(Unavailable, match="does not take it up"):
        group.skip()


def test_a_gap_is_skipped_by_the_group(durable: Valkey, lake: Location) -> None:
    stream = RedisStream(durable.url)
    topic = stream.create(TOPIC, partitions=1)
    stream.publish(topic, [message(event) for event in payments(0, 30)])
    stream.release(topic, 0, 7)
    seen = durable_world(durable.url, lake)
    group = PartitionGroup(lambda: seen.parts, [0])
    until(lambda: any("were dropped" in status.error for status in group.status()))
    assert group.skip() == 7
    until(lambda: sum(status.progress.rows for status in group.status()) == 23)
    group.stop()
    assert seen.in_lake() == list(range(7, 30))


def test_a_group_that_cannot_begin_says_why(durable: Valkey, lake: Location) -> None:
    def build() -> Parts:
        raise Unavailable("no lake today", retry_after_s=1.0)

    group = PartitionGroup(build, [0])
    until(lambda: "no lake today" in group.error())
    assert group.status() == []
    group.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_killed_actor_is_restarted_and_goes_on(durable: Valkey, lake: Location) -> None:
    import ray

    stream = RedisStream(durable.url)
    topic = stream.create(TOPIC, partitions=2)
    build = partial(durable_parts, durable.url, lake)
    (actor,) = start(TOPIC, build, 2)
    try:
        for first in (0, 30):
            stream.publish(topic, [message(event) for event in payments(first, 30)])
            until(lambda: sum(status.progress.rows for status in ray.get(actor.status.remote())) >= first + 30)  # noqa: B023
            ray.kill(actor, no_restart=False)
        assert ray.get_actor(actor_name(TOPIC, 0), namespace=NAMESPACE) == start(TOPIC, build, 2)[0]
        assert running(TOPIC) == [actor]
        assert running("nobody") == []
    finally:
        ray.kill(actor)
    seen = durable_world(durable.url, lake)
    assert seen.in_lake() == seen.online_ids() == list(range(60))
