"""Streams as people ask for them, over a real server; the actors' groups run in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster import stream_status, streams
from headway.cluster.compose import Installation
from headway.cluster.stream_parts import views_of
from headway.core import ray_session
from headway.core.clock import SystemClock
from headway.core.control import MemoryControlStore
from headway.core.errors import Conflict, DefinitionError, Forbidden, NotFound, Unavailable
from headway.core.progress import RecordedProgress
from headway.core.types import Principal
from headway.features.definitions import EventSource, Overflow, View
from headway.features.lake.tables import Location
from headway.features.named import source_named
from headway.features.streams import group
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.group import PartitionGroup
from headway.governance.audit_event import MemoryAudit
from tests.features.conftest import lake, online_url, redis_url
from tests.features.oracle import SOURCE
from tests.features.streams.world import VIEW, World, message, payments, until

__all__ = ["lake", "online_url", "redis_url"]
OTHER = dataclasses.replace(SOURCE, name="refunds")
ADDED = dataclasses.replace(VIEW, name="added")


class Remote:
    """An actor's handle: what its methods answer comes at once."""

    def __init__(self, target: PartitionGroup) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.target, name))


class Cluster:
    """A project of two sources, one with a view, on an installation without Ray."""

    def __init__(self, url: str, lake: Location, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream, self.control = RedisStream(url), MemoryControlStore()
        self.seen = World(url, lake, SystemClock(), self.stream, self.control, segment_age=200_000)
        self.views: Sequence[View] = (VIEW,)
        self.actors: dict[str, list[Remote]] = {}
        self.filled: list[View] = []
        self.endpoints: list[Installation] = []
        self.audit = MemoryAudit()
        self.at = cast(
            Installation,
            SimpleNamespace(
                project=SimpleNamespace(
                    use_cases=lambda: ["shop", "bar"], collect=lambda folder, kind: [SOURCE, OTHER]
                ),
                views=self.views_of_use_case,
                stream=self.stream,
                control=self.control,
                clock=SystemClock(),
                online=self.seen.online,
                audit=self.audit,
                settings=SimpleNamespace(redis_features_url=url),
            ),
        )
        monkeypatch.setattr(ray_session, "connect", lambda settings: None)
        monkeypatch.setattr(streams, "fill_new", lambda at, views: self.filled.extend(views))
        monkeypatch.setattr("headway.cluster.events.deploy_events", self.deploy)
        monkeypatch.setattr(streams, "_answer", lambda answer, name: answer)
        monkeypatch.setattr("ray.kill", lambda actor, no_restart: self.actors.clear())
        monkeypatch.setattr("ray.get", lambda answers, timeout: answers)
        monkeypatch.setattr(group, "running", lambda topic: self.actors.get(topic, []))
        monkeypatch.setattr(group, "start", self.start)

    def views_of_use_case(self, use_case: str) -> Sequence[View]:
        if use_case == "bar":
            raise DefinitionError("no such module", file="training/bar.py")
        return self.views

    def start(self, topic: str, build: Callable[[], Any], partitions: int, *, groups: int) -> list[Remote]:
        del build  # what is at hand here takes the place of a running platform
        parts = dataclasses.replace(self.seen.parts, topic=topic, views=self.views)
        if topic not in self.actors:
            shares = [range(number, partitions, groups) for number in range(groups)]
            self.actors[topic] = [Remote(PartitionGroup(lambda: parts, share)) for share in shares]
        return self.actors[topic]

    def deploy(self, at: Installation) -> str:
        self.endpoints.append(at)
        return "http://here/v1/events"

    def acts(self) -> list[tuple[str, str, str]]:
        return [(event.action, event.resource, event.outcome) for event in self.audit.events]


@pytest.fixture
def cluster(online_url: str, lake: Location, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster(online_url, lake, monkeypatch)
    monkeypatch.setattr(made.at.project, "use_cases", lambda: ["shop"])
    groups = made.actors
    yield made
    for actor in [actor for some in groups.values() for actor in some]:
        actor.target.stop()


def who(*scopes: str) -> Principal:
    return Principal(sub="ann", kind="human", scopes=frozenset(scopes), purpose="testing", expires=2**62)


ANN = who("features:write", "data:read")


def run(cluster: Cluster, *names: str, **given: Any) -> list[streams.Running]:
    return streams.run(cluster.at, ANN, RecordedProgress(), names, **given)


def status(cluster: Cluster, *names: str, sizes: bool = False) -> list[stream_status.SourceStatus]:
    return stream_status.status(cluster.at, ANN, names, sizes=sizes)


def test_a_stream_is_started_watched_and_stopped(cluster: Cluster) -> None:
    assert [one.state for one in status(cluster)] == ["no topic", "no topic"]
    (started,) = run(cluster, "payments", partitions=2)
    assert (started.partitions, started.actors, started.views) == (2, 1, (VIEW.name,))
    assert cluster.filled == [VIEW]
    assert cluster.endpoints == [cluster.at], "events are taken over HTTP too"
    topic = cluster.stream.topic("payments")
    cluster.stream.publish(topic, [*(message(event) for event in payments(0, 30)), (b"k", b"poison")])
    until(lambda: sum(part.progress.rows for part in status(cluster, "payments")[0].partitions) == 30)
    (seen,) = status(cluster, "payments", sizes=True)
    assert (seen.state, [part.state for part in seen.partitions]) == ("running", ["running"] * 2)
    assert seen.sizes[0].keys == 7
    assert any("1 dead letters" in line for line in seen.alarms)
    assert streams.stop(cluster.at, ANN, RecordedProgress()) == ["payments"]
    cluster.stream.publish(topic, [message(event) for event in payments(30, 4)])
    (rest,) = status(cluster, "payments")
    assert (rest.state, sum(part.lag for part in rest.partitions), rest.alarms) == ("stopped", 4, ())
    assert sum(part.progress.rows for part in rest.partitions) == 30
    assert cluster.seen.in_lake() == list(range(30))
    assert cluster.acts() == [("stream.run", "payments", "done"), ("stream.stop", "payments", "done")]
    assert streams.stop(cluster.at, ANN, RecordedProgress()) == []


def test_starting_again_goes_on_and_tells_the_views(cluster: Cluster) -> None:
    run(cluster, "payments")
    cluster.views = (VIEW, ADDED)
    (again,) = run(cluster, "payments")
    assert (again.partitions, again.views) == (streams.PARTITIONS, (VIEW.name, "added"))
    cluster.stream.publish(cluster.stream.topic("payments"), [message(event) for event in payments(0, 9)])
    until(lambda: cluster.seen.online_ids(ADDED) == cluster.seen.online_ids() == list(range(9)))


def test_a_deployment_tells_running_streams_their_views(cluster: Cluster) -> None:
    run(cluster, "payments", partitions=1)
    cluster.stream.publish(cluster.stream.topic("payments"), [message(event) for event in payments(0, 9)])
    until(lambda: sum(part.progress.rows for part in status(cluster, "payments")[0].partitions) == 9)
    cluster.views = (VIEW, ADDED)
    streams.follow(cluster.at)
    until(lambda: cluster.seen.online_ids(ADDED) == list(range(9)))
    assert cluster.seen.refills == 1, "what was there before came from the lake"


def test_messages_that_a_topic_dropped_are_skipped_on_demand(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="payments"):
        streams.skip(cluster.at, ANN, "payments")
    topic = cluster.stream.create("payments", partitions=1)
    cluster.stream.publish(topic, [message(event) for event in payments(0, 9)])
    cluster.stream.release(topic, 0, 5)
    run(cluster, "payments")
    until(lambda: any("were dropped" in part.error for part in status(cluster, "payments")[0].partitions))
    assert streams.skip(cluster.at, ANN, "payments") == 5
    until(lambda: any("5 messages were dropped" in line for line in status(cluster, "payments")[0].alarms))
    assert ("stream.skip", "payments", "5 messages") in cluster.acts()


def test_what_was_published_is_waited_for_and_brought_to_the_lake_at_once(cluster: Cluster) -> None:
    run(cluster, "payments", partitions=2)
    cluster.stream.publish(cluster.stream.topic("payments"), [message(event) for event in payments(0, 30)])
    until_here = stream_status.ends(cluster.stream, "payments")
    stream_status.await_readable(cluster.at, "payments", until_here)
    assert cluster.seen.online_ids() == list(range(30))
    streams.flush(cluster.at, ["payments", "refunds"])
    assert cluster.seen.in_lake() == list(range(30))
    streams.stop(cluster.at, ANN, RecordedProgress())
    cluster.stream.publish(cluster.stream.topic("payments"), [message(event) for event in payments(30, 4)])
    now = stream_status.ends(cluster.stream, "payments")
    with pytest.raises(
        Unavailable, match="events of payments are not readable after 0 s: the stream is stopped"
    ) as caught:
        stream_status.await_readable(cluster.at, "payments", now, within_s=0.05)
    assert caught.value.hint == "headway stream status payments"


def test_who_may_not_is_refused_and_told(cluster: Cluster) -> None:
    nobody = who("ingest:other")
    for act in (streams.run, streams.stop):
        with pytest.raises(Forbidden, match="features:write"):
            act(cluster.at, nobody, RecordedProgress(), ["payments"])
    with pytest.raises(Forbidden, match="features:write"):
        streams.skip(cluster.at, nobody, "payments")
    with pytest.raises(Forbidden, match="data:read"):
        stream_status.status(cluster.at, nobody)
    assert [outcome for _, _, outcome in cluster.acts()] == ["denied"] * 3
    assert cluster.actors == {}


def test_what_cannot_run_is_refused_before_anything_starts(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="did you mean 'payments'"):
        run(cluster, "payment")
    cluster.views = (dataclasses.replace(VIEW, overflow=Overflow.REJECT),)
    with pytest.raises(DefinitionError, match="overflow"):
        run(cluster, "payments")
    assert cluster.actors == {}
    cluster.views = (VIEW,)
    run(cluster, "payments", partitions=2)
    with pytest.raises(Conflict, match="2 partitions, not 3"):
        run(cluster, "payments", partitions=3)
    with pytest.raises(Conflict, match="1 actors run") as caught:
        run(cluster, "payments", actors=2)
    assert "headway stream stop payments" in (caught.value.hint or "")


def test_a_use_case_that_is_broken_stops_the_stream_of_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.at.project, "use_cases", lambda: ["shop", "bar"])
    assert views_of(cluster.at, SOURCE) == (VIEW,)
    assert views_of(cluster.at, OTHER) == ()
    with pytest.raises(DefinitionError, match="no such module"):
        views_of(cluster.at, SOURCE, strict=True)


def test_sources_are_found_by_name(cluster: Cluster) -> None:
    found: EventSource = source_named(cluster.at.project, "refunds")
    assert found == OTHER
