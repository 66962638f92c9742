"""The batcher under random interleavings of callers, deadlines, a failing executor and cancelled tasks.

The law: every submitted call ends exactly once, nothing stays counted as waiting, and later traffic is unaffected.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.errors import Unavailable
from headway.serving.batching import Batcher
from headway.serving.priority import Priority
from tests.serving.helpers import run
from tests.serving.test_batching import Item
from tests.serving.virtual_time import VirtualLoop, run_virtual

POISON = 666


@dataclass
class Bent:
    """An executor that finishes when told to, in the way told."""

    gates: list[asyncio.Future[str]] = field(default_factory=list)
    runs: int = 0
    free: bool = False

    async def __call__(self, items: Sequence[Item]) -> Sequence[int | Exception]:
        self.runs += 1
        how = "ok"
        if not self.free:
            gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self.gates.append(gate)
            how = await gate
        if how == "fail" or any(item.value == POISON for item in items):
            raise RuntimeError("broken")
        if how == "away":
            raise Unavailable("away", retry_after_s=1.0)
        if how == "cancelled inside":
            raise asyncio.CancelledError
        if how == "too few":
            return [item.value for item in items][:-1]
        if how == "errors":
            return [ValueError(item.value) for item in items]
        return [item.value for item in items]

    def finish(self, how: str) -> None:
        gates, self.gates = self.gates, []
        for gate in gates:
            if not gate.done():
                gate.set_result(how)


STEPS = st.one_of(
    st.tuples(
        st.just("submit"),
        st.integers(1, 9),
        st.sampled_from(list(Priority)),
        st.sampled_from([0.0, 0.5, 1.0, 1e9]),
        st.booleans(),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 60)),
    st.tuples(st.just("advance"), st.integers(1, 700_000)),
    st.tuples(st.just("look")),
    st.tuples(st.just("finish"), st.sampled_from(["ok", "fail", "away", "cancelled inside", "too few", "errors"])),
    st.tuples(st.just("stop")),
    st.tuples(st.just("turn"), st.integers(1, 4)),
)


@settings(deadline=None, max_examples=300)
@given(steps=st.lists(STEPS, max_size=60))
def test_every_call_ends_once_and_nothing_is_left_behind(steps: list[tuple[object, ...]]) -> None:
    async def work() -> None:
        clock, executor = ManualClock(), Bent()
        b: Batcher[Item, int] = Batcher(executor, max_rows=8, clock=clock)
        calls: list[asyncio.Future[int]] = []
        ends: list[int] = []

        def ended(index: int, _: asyncio.Future[int]) -> None:
            ends.append(index)

        for step in steps:
            match step:
                case ("submit", int(size), Priority() as priority, float(left), bool(poison)):
                    deadline = clock.monotonic() + left
                    future = b.submit(Item(POISON if poison else len(calls), size, deadline), priority)
                    future.add_done_callback(partial(ended, len(calls)))
                    calls.append(future)
                case ("cancel", int(index)) if calls:
                    calls[index % len(calls)].cancel()
                case ("advance", int(span)):
                    clock.advance(span)
                case ("look",):
                    b._look_now()
                case ("finish", str(how)):
                    executor.finish(how)
                case ("stop",) if b._task is not None:
                    b._task.cancel()
                case ("turn", int(turns)):
                    for _ in range(turns):
                        await asyncio.sleep(0)
        executor.free = True
        for _ in range(10):
            executor.finish("ok")
            await asyncio.sleep(0)
        await asyncio.wait_for(b.idle(), 5)
        await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert sorted(ends) == list(range(len(calls)))
        assert (b.queued_rows, b.class_rows, len(b._fair), b._running) == (0, [0, 0, 0], 0, [])
        assert b.wait_s() == 0.0
        later = [b.submit(Item(value), Priority(value % 3)) for value in range(20)]
        assert await asyncio.wait_for(asyncio.gather(*later), 5) == list(range(20))
        assert b.queued_rows == 0

    run(work())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 100, 512])
def test_one_poison_call_costs_few_executions_wherever_it_is(count: int) -> None:
    async def work() -> None:
        for place in {0, count // 2, count - 1}:
            executor = Bent(free=True)
            b: Batcher[Item, int] = Batcher(executor, max_rows=count, clock=ManualClock())
            calls = [b.submit(Item(POISON if i == place else i)) for i in range(count)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [i for i, answer in enumerate(answers) if answer != i] == [place]
            assert executor.runs <= 2 * math.ceil(math.log2(count)) + 1

    run(work())


def test_what_expires_while_the_executor_is_busy_is_answered_then() -> None:
    """Both the call that waits and the one that runs; the executor goes on only after they were answered."""

    loop = VirtualLoop()

    async def work() -> None:
        executor = Bent()
        b: Batcher[Item, int] = Batcher(executor, max_rows=1, clock=loop)
        runs = b.submit(Item(1, deadline=loop.monotonic() + 0.05))
        await asyncio.sleep(0)
        waits = b.submit(Item(2, deadline=loop.monotonic() + 0.02))
        patient = b.submit(Item(3))
        for late in (waits, runs):
            with pytest.raises(Unavailable, match="deadline"):
                await late
        assert (b.expired, b.queued_rows, executor.runs) == (2, 1, 1)
        executor.free = True
        executor.finish("ok")
        assert await patient == 3

    run_virtual(work(), loop)


def test_a_task_cancelled_before_its_first_step_leaves_nobody_waiting() -> None:
    async def work() -> None:
        b: Batcher[Item, int] = Batcher(Bent(free=True), max_rows=8, clock=ManualClock())
        call = b.submit(Item(1))
        assert b._task is not None
        b._task.cancel()
        with pytest.raises(Unavailable, match="stopping"):
            await call
        assert await b.submit(Item(2)) == 2

    run(work())


def test_a_twin_does_not_wait_behind_the_first_queue_and_idle_waits_for_both() -> None:
    async def work() -> None:
        executor = Bent()
        b: Batcher[Item, int] = Batcher(executor, max_rows=1, clock=ManualClock())
        twin = b.twin()
        first, second, beside = b.submit(Item(1)), b.submit(Item(2)), twin.submit(Item(3))
        await asyncio.sleep(0)
        assert len(executor.gates) == 2
        executor.gates.pop().set_result("ok")
        assert await beside == 3
        assert not first.done()
        executor.free = True
        executor.finish("ok")
        await b.idle()
        assert (await first, await second) == (1, 2)

    run(work())
