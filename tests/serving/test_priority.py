"""Classes of callers: the law of start-time fair queueing, and what it means for a call behind a flood."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.serving.batching import Batcher
from headway.serving.priority import WEIGHTS, FairQueue, Priority, priority_of
from tests.serving.helpers import run
from tests.serving.test_batching import Item


def served(queue: FairQueue[int]) -> tuple[int, int]:
    """Take one call as the batcher does: class and rows."""
    priority, _ = queue.turn()
    rows = queue.queues[priority].popleft()
    queue.served(priority, rows, rows)
    return priority, rows


def test_scopes_and_time_decide_the_class() -> None:
    assert priority_of({"decide:toy"}, replayed=False) is Priority.NORMAL
    assert priority_of({"decide:toy", "priority:high"}, replayed=False) is Priority.HIGH
    assert priority_of({"decide:toy", "priority:high"}, replayed=True) is Priority.LOW


@settings(deadline=None, max_examples=200)
@given(
    calls=st.lists(st.tuples(st.sampled_from(list(Priority)), st.integers(1, 30)), min_size=1, max_size=80),
    arrivals=st.lists(st.integers(0, 3), max_size=80),
)
def test_while_two_classes_wait_they_are_served_by_weight(
    calls: list[tuple[Priority, int]], arrivals: list[int]
) -> None:
    """|W_f / w_f - W_g / w_g| ≤ longest_f / w_f + longest_g / w_g over every interval in which both wait."""
    queue: FairQueue[int] = FairQueue()
    coming = list(calls)
    longest = [max((rows for of, rows in calls if of == priority), default=0) for priority in Priority]
    totals = [0.0] * 3
    since: dict[tuple[int, int], tuple[float, float]] = {}
    turns = iter(arrivals)
    while coming or len(queue):
        for _ in range(next(turns, 1)):
            if coming:
                priority, rows = coming.pop(0)
                queue.push(rows, priority)
        both = [(f, g) for f in range(3) for g in range(f) if queue.queues[f] and queue.queues[g]]
        since = {pair: since.get(pair, (totals[pair[0]], totals[pair[1]])) for pair in both}
        if not len(queue):
            continue
        turn, rows = served(queue)
        totals[turn] += rows
        for (f, g), (before_f, before_g) in since.items():
            apart = abs((totals[f] - before_f) / WEIGHTS[f] - (totals[g] - before_g) / WEIGHTS[g])
            assert apart <= longest[f] / WEIGHTS[f] + longest[g] / WEIGHTS[g] + 1e-9


def test_a_class_alone_has_everything_and_time_away_is_not_saved_up() -> None:
    queue: FairQueue[int] = FairQueue()
    for _ in range(100):
        queue.push(1, Priority.LOW)
    assert queue.turn() == (Priority.LOW, float("inf"))
    for _ in range(50):
        served(queue)
    for _ in range(100):
        queue.push(1, Priority.NORMAL)
    # the newcomer does not take 200 rows for the 50 that it was away
    assert [served(queue)[0] for _ in range(10)].count(Priority.LOW) >= 1


class Order:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, items: Sequence[Item]) -> Sequence[int | Exception]:
        await self.gate.wait()
        self.batches.append([item.value for item in items])
        return [item.value for item in items]


@settings(deadline=None, max_examples=40)
@given(flood=st.integers(1, 400), bound=st.integers(1, 64))
def test_a_high_call_is_in_the_batch_after_the_one_that_runs_however_long_the_queue(flood: int, bound: int) -> None:
    async def work() -> None:
        order = Order()
        b: Batcher[Item, int] = Batcher(order, max_rows=bound, clock=ManualClock())
        waiting = [b.submit(Item(0))]
        await asyncio.sleep(0)
        waiting += [b.submit(Item(value)) for value in range(1, flood + 1)]
        waiting.append(b.submit(Item(-1), Priority.HIGH))
        order.gate.set()
        await asyncio.gather(*waiting)
        assert order.batches[1][0] == -1

    run(work())


@settings(deadline=None, max_examples=40)
@given(flood=st.integers(50, 400), size=st.integers(1, 8), bound=st.integers(1, 64))
def test_a_normal_call_behind_a_flood_of_high_ones_waits_for_its_share_only(flood: int, size: int, bound: int) -> None:
    async def work() -> None:
        order = Order()
        b: Batcher[Item, int] = Batcher(order, max_rows=bound, clock=ManualClock())
        waiting = [b.submit(Item(0), Priority.HIGH)]
        await asyncio.sleep(0)
        waiting += [b.submit(Item(value), Priority.HIGH) for value in range(1, flood + 1)]
        waiting += [b.submit(Item(-1, size), Priority.NORMAL), b.submit(Item(-2, size), Priority.NORMAL)]
        order.gate.set()
        await asyncio.gather(*waiting)
        served_before = [value for batch in order.batches for value in batch]
        ratio = WEIGHTS[Priority.HIGH] / WEIGHTS[Priority.NORMAL]
        assert served_before.index(-2) <= min(flood + 2, 2 + 1 + ratio * (size + 1))

    run(work())
