from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.counts import CountsDelta, MemoryCountsChannel
from headway.core.errors import Tampered, Unavailable
from headway.core.routing import VersionRef, promote
from headway.features.profile import build_profile
from headway.models.input_schema import InputSchema
from headway.serving.host import ModelHost
from tests.serving.helpers import run

MATRIX = np.arange(40, dtype=np.float32).reshape(20, 2)
SCORES = np.linspace(0, 1, 20, dtype=np.float32)
PROFILE = build_profile(MATRIX, ["a", "b"], SCORES)


def ref(version: str) -> VersionRef:
    return VersionRef(version=version, path=f"/models/{version}", statement_sha256="0" * 64)


def load(wanted: VersionRef) -> Any:
    if wanted.version == "bad":
        raise Tampered("bytes differ")
    backend = SimpleNamespace(name="fake", predict=lambda matrix: np.full(len(matrix), int(wanted.version), np.float32))
    return SimpleNamespace(
        backend=backend,
        profile=PROFILE,
        statement=SimpleNamespace(reference_profile_sha256=PROFILE.sha256()),
        input_schema=InputSchema(features=()),
    )


def host(store: MemoryControlStore, channel: Any = None, **more: Any) -> ModelHost:
    parts: dict[str, Any] = {"load": load, "clock": ManualClock(), **more}
    return ModelHost("toy", store=store, channel=channel or MemoryCountsChannel(), replica="r", **parts)


def route(store: MemoryControlStore, version: str) -> None:
    promote(store, "toy", ref(version), reason="test", by="test", now=1)


def test_it_swaps_when_the_record_changes_and_keeps_serving_when_the_new_one_is_bad() -> None:
    store = MemoryControlStore()
    route(store, "1")
    h = host(store)
    h.start()

    async def work() -> list[tuple[bool, str | None, str | None]]:
        seen = []
        for version in (None, "2", "bad", "3"):
            if version:
                route(store, version)
            changed = await h.poll()
            seen.append((changed, h.state.champion, h.state.error))
        return seen

    assert run(work()) == [(False, "1", None), (True, "2", None), (False, "2", "bytes differ"), (True, "3", None)]


def test_a_bad_champion_keeps_the_replica_from_starting() -> None:
    store = MemoryControlStore()
    route(store, "bad")
    with pytest.raises(Tampered):
        host(store).start()


def test_without_a_champion_it_is_not_ready_and_follows() -> None:
    store = MemoryControlStore()
    h = host(store)
    h.start()
    assert not h.ready
    assert h.steps() == ()
    route(store, "1")
    assert run(h.poll())
    assert h.ready


def test_the_previous_version_stands_by_where_the_ladder_asks() -> None:
    store = MemoryControlStore()
    route(store, "1")
    route(store, "2")
    h = host(store, keep_previous=True)
    h.start()
    assert [(arm, model.version) for arm, model in h.steps()] == [("champion", "2"), ("previous", "1")]


def test_counts_are_exact_per_version_numbered_and_survive_a_swap() -> None:
    store, channel = MemoryControlStore(), MemoryCountsChannel()
    route(store, "1")
    h = host(store, channel)
    h.start()

    async def work() -> None:
        h.steps()[0][1].count(MATRIX, SCORES, np.arange(100, 120, dtype=np.int64))
        route(store, "2")
        await h.poll()
        h.steps()[0][1].count(MATRIX[:3], SCORES[:3], np.arange(200, 203, dtype=np.int64))
        await h.publish()
        await h.publish()

    run(work())
    deltas, _ = channel.read("toy", "")
    assert [(d.version, d.rows, d.sequence, d.first_time, d.last_time) for d in deltas] == [
        ("1", 20, 0, 100, 119),
        ("2", 3, 1, 200, 202),
    ]
    assert (deltas[0].array() == PROFILE.flat()).all()


class Flaky(MemoryCountsChannel):
    """Loses the answer or the delta while it is down."""

    down = True
    received = False

    def publish(self, delta: CountsDelta) -> None:
        if not self.down or self.received:
            super().publish(delta)
        if self.down:
            raise Unavailable("away", retry_after_s=1)


@pytest.mark.parametrize("received", [False, True])
def test_counts_wait_in_bounded_room_while_the_channel_is_down(received: bool) -> None:
    store, channel = MemoryControlStore(), Flaky()
    channel.received = received
    route(store, "1")
    h = host(store, channel)
    h.start()

    async def work() -> None:
        for second in range(1_000):
            h.steps()[0][1].count(MATRIX, SCORES, np.arange(second, second + 20, dtype=np.int64))
            with pytest.raises(Unavailable):
                await h.publish()
        channel.down = False
        await h.publish()

    run(work())
    first, *repeats, rest = channel.read("toy", "")[0]
    # what the channel may have had is repeated as it was: the reader drops it by its number
    assert {(d.sequence, d.rows, d.counts) for d in repeats} <= {(first.sequence, first.rows, first.counts)}
    assert [(d.sequence, d.rows, d.first_time, d.last_time) for d in (first, rest)] == [
        (0, 20, 0, 19),
        (1, 19_980, 1, 1_018),
    ]
    assert (first.array() + rest.array() == 1_000 * PROFILE.flat()).all()


def test_counts_of_two_versions_are_never_merged() -> None:
    store, channel = MemoryControlStore(), Flaky()
    route(store, "1")
    h = host(store, channel)
    h.start()

    async def work() -> None:
        for version in ("1", "2", "2"):
            route(store, version)
            await h.poll()
            h.steps()[0][1].count(MATRIX, SCORES, np.array([int(version)] * 20, dtype=np.int64))
            with pytest.raises(Unavailable):
                await h.publish()
        h.steps()[0][1].count(MATRIX[:3], SCORES[:3], np.array([9] * 3, dtype=np.int64))
        channel.down = False
        await h.publish()

    run(work())
    assert [(d.sequence, d.version, d.rows, d.first_time, d.last_time) for d in channel.read("toy", "")[0]] == [
        (0, "1", 20, 1, 1),
        (1, "2", 43, 2, 9),
    ]


def tries(h: ModelHost, clock: ManualClock, asked: list[str], seconds: float) -> list[float]:
    """Poll for so long and return when the version was loaded, in seconds."""
    begin, at = clock.monotonic(), []

    async def work() -> None:
        while clock.monotonic() < begin + seconds:
            before = len(asked)
            await h.poll()
            at.extend([clock.monotonic() - begin] * (len(asked) - before))
            clock.advance(500_000)

    run(work())
    return at


@pytest.mark.parametrize("failure", [Tampered("bytes differ"), MemoryError("much")])
def test_a_refused_version_is_tried_ever_more_rarely_and_another_at_once(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store, clock, asked = MemoryControlStore(), ManualClock(), list[str]()

    def fussy(wanted: VersionRef) -> Any:
        asked.append(wanted.version)
        if wanted.version == "bad":
            raise failure
        return load(wanted)

    route(store, "1")
    h = host(store, clock=clock, load=fussy)
    h.start()
    asked.clear()
    route(store, "bad")
    at = tries(h, clock, asked, 600)
    assert at[:8] == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5]
    assert {later - earlier for earlier, later in pairwise(at[7:])} == {60}
    refused = h.state
    assert refused.champion == "1"
    assert refused.error
    assert len([record for record in caplog.records if "is refused" in record.message]) == 1
    route(store, "2")
    assert tries(h, clock, asked, 0.5) == [0]
    assert (h.state.champion, h.state.error) == ("2", None)
    route(store, "bad")
    assert tries(h, clock, asked, 1.0) == [0, 0.5]


def test_a_version_that_recovers_is_served() -> None:
    store, clock, broken = MemoryControlStore(), ManualClock(), [True]

    def recovering(wanted: VersionRef) -> Any:
        if broken[0]:
            raise Unavailable("no memory", retry_after_s=1)
        return load(wanted)

    h = host(store, clock=clock, load=recovering)
    h.start()
    route(store, "1")
    tries(h, clock, [], 100)
    broken[0] = False
    tries(h, clock, [], 61)
    assert (h.state.champion, h.state.error) == ("1", None)


def test_a_store_that_is_away_is_asked_again_at_once() -> None:
    class Away(MemoryControlStore):
        away = False

        def get(self, key: str) -> Any:
            if self.away:
                raise Unavailable("the control store cannot be reached", retry_after_s=1)
            return super().get(key)

    store, clock = Away(), ManualClock()
    h = host(store, clock=clock)
    h.start()
    route(store, "bad")
    tries(h, clock, [], 10)
    store.away = True
    tries(h, clock, [], 10)
    assert h.state.error == "the control store cannot be reached"
    store.away = False
    tries(h, clock, [], 0.5)
    assert h.state.error == "bytes differ"
