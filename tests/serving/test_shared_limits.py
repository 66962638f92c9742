"""Limits of several replicas: the bound on what they let through together, alone and on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock, SystemClock
from headway.core.errors import Unavailable
from headway.features.link import RedisLink
from headway.serving.breaker import State
from headway.serving.limiter import Gcra
from headway.serving.shared_limits import Ahead, LimitStore, MemoryLimitStore, RedisLimitStore, SharedLimits
from tests.features.valkey import serving
from tests.serving.helpers import run

PERIOD = 0.05


class Fleet:
    """N replicas on one clock; replica i exchanges every period, at its own phase."""

    def __init__(self, count: int, *, rate: float, burst: float, store: LimitStore | None = None) -> None:
        self.clock = ManualClock()
        self.store = store or MemoryLimitStore(self.clock)
        if isinstance(self.store, MemoryLimitStore):
            self.store.replicas = count
        self.limiters = [Gcra(rate=rate, burst=burst) for _ in range(count)]
        self.shared = [SharedLimits({"d:": limiter}, self.store, self.clock) for limiter in self.limiters]
        self._next = [PERIOD * (index + 1) / count for index in range(count)]
        self.admitted: list[tuple[float, int]] = []

    async def wait(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while (due := min(self._next)) <= end:
            self._advance(due - self.clock.monotonic())
            index = self._next.index(due)
            self._next[index] += PERIOD
            await self.shared[index].exchange()
        self._advance(end - self.clock.monotonic())

    def ask(self, replica: int, rows: int) -> bool:
        now = self.clock.monotonic()
        taken = not self.limiters[replica % len(self.limiters)].take("a", rows, now)
        if taken:
            self.admitted.append((now, rows))
        return taken

    def _advance(self, seconds: float) -> None:
        self.clock.advance(max(0, round(seconds * 1e6)))


@settings(deadline=None, max_examples=150)
@given(
    count=st.integers(1, 5),
    rate=st.floats(5, 200),
    burst=st.integers(1, 50),
    asks=st.lists(
        st.tuples(st.sampled_from([0.0, 0.001, 0.02, 0.06, 0.3, 2.0]), st.integers(0, 4), st.integers(1, 50)),
        max_size=120,
    ),
)
def test_replicas_together_stay_within_the_stated_bound(
    count: int, rate: float, burst: int, asks: list[tuple[float, int, int]]
) -> None:
    async def work() -> None:
        fleet = Fleet(count, rate=rate, burst=burst)
        for wait, replica, rows in asks:
            await fleet.wait(wait)
            while fleet.ask(replica, min(rows, burst)):
                pass
        for start in range(len(fleet.admitted)):
            total = 0
            for at, rows in fleet.admitted[start:]:
                total += rows
                allowed = count * burst + rate * (at - fleet.admitted[start][0]) + 3 * count * rate * PERIOD
                assert total <= allowed + 1e-3

    run(work())


@pytest.mark.parametrize("count", [2, 5])
def test_the_long_run_rate_is_the_contracts_however_a_client_spreads_its_bursts(count: int) -> None:
    """Bursts at one replica after the other: each is paid back, so that more replicas give no more rows."""

    async def work() -> None:
        fleet = Fleet(count, rate=100, burst=50)
        for step in range(2_000):
            await fleet.wait(0.03)
            while fleet.ask(step // 7, 10):
                pass
        rows = sum(rows for _, rows in fleet.admitted)
        assert 100 * 60 * 0.9 <= rows <= 100 * 60 + count * 50 + 3 * count * 100 * PERIOD

    run(work())


def test_a_client_within_its_limit_is_never_refused_for_being_spread() -> None:
    async def work() -> None:
        fleet = Fleet(4, rate=100, burst=40)
        for step in range(3_000):
            await fleet.wait(0.02)
            assert fleet.ask(step, 1 + step % 2)

    run(work())


class Away(MemoryLimitStore):
    away = False

    async def exchange(self, clients: Sequence[str], owed_s: Sequence[float], *, leaving: bool = False) -> Ahead:
        if self.away:
            raise Unavailable("away", retry_after_s=1.0)
        return await super().exchange(clients, owed_s, leaving=leaving)


def test_while_the_store_is_away_each_keeps_to_its_share_and_nothing_is_charged_twice_afterwards() -> None:
    async def work() -> None:
        fleet = Fleet(4, rate=100, burst=20)
        store = Away(fleet.clock)
        store.replicas = 4
        for shared in fleet.shared:
            shared._store = store
        await fleet.wait(2)
        assert [shared.replicas for shared in fleet.shared] == [4] * 4
        store.away = True
        await fleet.wait(5)
        assert all(shared.alone and shared.breaker.state is State.OPEN for shared in fleet.shared)
        for step in range(4_000):
            await fleet.wait(0.005)
            fleet.ask(step, 1)
        alone = len(fleet.admitted)
        assert 20 * 100 * 0.95 <= alone <= 20 * 100 + 4 * 20
        store.away = False
        await fleet.wait(3)
        assert not any(shared.alone for shared in fleet.shared)
        assert all(limiter.interval == 0.01 for limiter in fleet.limiters)
        assert fleet.ask(0, 20)

    run(work())


def test_a_client_that_pays_is_forgotten() -> None:
    async def work() -> None:
        fleet = Fleet(2, rate=100, burst=20)
        assert fleet.ask(0, 20)
        await fleet.wait(1)
        assert [len(limiter.cells) for limiter in fleet.limiters] == [0, 0]

    run(work())


def test_the_script_keeps_the_same_books(tmp_path: object) -> None:
    async def work() -> None:
        with serving() as server:
            link = RedisLink(server.url, timeout_s=10.0)
            first, second = RedisLimitStore(link, "toy", "r1"), RedisLimitStore(link, "toy", "r2")
            assert (await first.exchange(["a", "b"], [1000.0, 0.0])).seconds == [pytest.approx(1000, abs=5), 0]
            ahead = await second.exchange(["b", "a", "c"], [5000.0, 500.0, 0.0])
            assert ahead.seconds == [pytest.approx(5000, abs=5), pytest.approx(1500, abs=30), 0]
            assert ahead.replicas == 2
            other = RedisLimitStore(link, "other", "r1")
            assert (await other.exchange(["a"], [0.0])).seconds == [0]
            assert (await first.exchange([], [], leaving=True)).replicas == 1
            await link.close()

    run(work())


def test_two_replicas_on_a_server_that_dies_and_comes_back() -> None:
    async def work() -> None:
        clock = SystemClock()
        with serving() as server:
            links = [RedisLink(server.url, timeout_s=10.0) for _ in range(2)]
            limiters = [Gcra(rate=1.0, burst=100.0) for _ in links]
            replicas = [
                SharedLimits({"d:": limiter}, RedisLimitStore(link, "toy", f"r{index}"), clock)
                for index, (limiter, link) in enumerate(zip(limiters, links, strict=True))
            ]
            tasks = [asyncio.create_task(replica.run()) for replica in replicas]
            assert not limiters[0].take("a", 100, clock.monotonic())
            # what one let through, the other hears of; it asks about a client from its first row on
            assert not limiters[1].take("a", 1, clock.monotonic())
            async with asyncio.timeout(60):
                while not limiters[1].take("a", 1, clock.monotonic()):
                    await asyncio.sleep(0.01)
            assert len(limiters[1].cells) == 1
            server.kill()
            async with asyncio.timeout(60):
                while not all(replica.alone for replica in replicas):
                    await asyncio.sleep(0.02)
            server.start()
            async with asyncio.timeout(60):
                while any(replica.alone for replica in replicas):
                    await asyncio.sleep(0.02)
            assert not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for link in links:
                await link.close()

    run(work(), 240)
