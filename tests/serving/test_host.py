from __future__ import annotations

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
        backend=backend, profile=PROFILE, statement=SimpleNamespace(reference_profile_sha256=PROFILE.sha256())
    )


def host(store: MemoryControlStore, channel: Any = None, **more: Any) -> ModelHost:
    return ModelHost(
        "toy",
        store=store,
        load=load,
        channel=channel or MemoryCountsChannel(),
        replica="r",
        clock=ManualClock(),
        **more,
    )


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


def test_counts_wait_while_the_channel_is_down() -> None:
    class Flaky(MemoryCountsChannel):
        down = True

        def publish(self, delta: CountsDelta) -> None:
            if self.down:
                raise Unavailable("away", retry_after_s=1)
            super().publish(delta)

    store, channel = MemoryControlStore(), Flaky()
    route(store, "1")
    h = host(store, channel)
    h.start()

    async def work() -> None:
        for _ in range(3):
            h.steps()[0][1].count(MATRIX[:1], SCORES[:1], np.array([5], dtype=np.int64))
            with pytest.raises(Unavailable):
                await h.publish()
        channel.down = False
        await h.publish()

    run(work())
    assert [d.sequence for d in channel.read("toy", "")[0]] == [0, 1, 2]
