from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.errors import Unavailable
from headway.serving.batch_cost import BatchCost
from headway.serving.batching import Batcher
from tests.serving.helpers import run


@dataclass
class Item:
    value: int
    size: int = 1
    deadline: float = 1e9


class Echo:
    def __init__(self, poison: frozenset[int] = frozenset()) -> None:
        self.sizes: list[int] = []
        self.poison = poison

    async def __call__(self, items: Sequence[Item]) -> Sequence[int | Exception]:
        self.sizes.append(sum(item.size for item in items))
        await asyncio.sleep(0)
        if any(item.value in self.poison for item in items):
            raise RuntimeError("poison")
        return [item.value for item in items]


def batcher(echo: Echo, rows: int = 8) -> Batcher[Item, int]:
    return Batcher(echo, max_rows=rows, clock=ManualClock())


def test_an_idle_executor_starts_at_once_and_a_busy_one_gathers() -> None:
    echo = Echo()

    async def work() -> list[int]:
        b = batcher(echo, rows=100)
        first = b.submit(Item(0))
        await asyncio.sleep(0)  # the first batch runs now
        return list(await asyncio.gather(first, *(b.submit(Item(i)) for i in range(1, 10))))

    assert run(work()) == list(range(10))
    assert echo.sizes == [1, 9]


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=30), bound=st.integers(1, 20))
def test_batches_respect_the_row_bound_and_lose_nothing(sizes: list[int], bound: int) -> None:
    echo = Echo()

    async def work() -> list[int]:
        b = batcher(echo, rows=bound)
        answers = list(await asyncio.gather(*(b.submit(Item(i, size)) for i, size in enumerate(sizes))))
        assert b.queued_rows == 0
        return answers

    assert run(work()) == list(range(len(sizes)))
    assert sum(echo.sizes) == sum(sizes)
    assert all(size <= bound or size in sizes for size in echo.sizes)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 40), poison=st.sets(st.integers(0, 39), max_size=6))
def test_only_the_poisonous_fail(count: int, poison: set[int]) -> None:
    async def work() -> list[int | BaseException]:
        b = batcher(Echo(frozenset(poison)), rows=16)
        return list(await asyncio.gather(*(b.submit(Item(i)) for i in range(count)), return_exceptions=True))

    for index, answer in enumerate(run(work())):
        assert isinstance(answer, RuntimeError) if index in poison else answer == index


def test_what_waited_too_long_is_refused_and_what_was_abandoned_is_skipped() -> None:
    echo = Echo()

    async def work() -> None:
        clock = ManualClock(0)
        b: Batcher[Item, int] = Batcher(echo, max_rows=8, clock=clock)
        late, gone, good = b.submit(Item(1, deadline=1.0)), b.submit(Item(2)), b.submit(Item(3))
        clock.advance(2_000_000)
        gone.cancel()
        with pytest.raises(Unavailable, match="deadline"):
            await late
        assert await good == 3

    run(work())
    assert echo.sizes == [1]


def test_capacity_errors_are_everybodys() -> None:
    async def down(items: Sequence[Item]) -> Sequence[int | Exception]:
        raise Unavailable("store is away", retry_after_s=2.0)

    async def work() -> list[int | BaseException]:
        b: Batcher[Item, int] = Batcher(down, max_rows=8, clock=ManualClock())
        return list(await asyncio.gather(*(b.submit(Item(i)) for i in range(3)), return_exceptions=True))

    errors = run(work())
    assert all(isinstance(error, Unavailable) for error in errors)
    assert len({id(error) for error in errors}) == 3


def test_cost_is_a_line_in_the_rows() -> None:
    cost = BatchCost()
    for _ in range(50):
        for rows in (1, 8, 32):
            cost.observe(rows, 0.001 + 0.0001 * rows)
    assert cost.seconds(10, 1) == pytest.approx(0.002, rel=0.05)
    assert cost.seconds(64, 2) == pytest.approx(0.0084, rel=0.05)


def test_the_slope_is_remembered_through_quiet_times_and_guessed_before_the_first_batch_of_another_size() -> None:
    cost = BatchCost()
    for _ in range(100):
        cost.observe(1, 0.005)
    assert cost.seconds(1, 1) == pytest.approx(0.005)
    assert cost.seconds(101, 1) == pytest.approx(0.055)
    for rows in (1, 8, 32) * 20:
        cost.observe(rows, 0.004 + 0.001 * rows)
    for _ in range(1_000):
        cost.observe(1, 0.005)
    assert cost.seconds(101, 1) == pytest.approx(0.105, rel=0.01)


def test_an_empty_queue_never_waits() -> None:
    b = batcher(Echo())
    assert b.wait_s() == 0.0
