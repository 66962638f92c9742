"""Spikes of ten and a hundred times against admission and batcher together, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from headway.core.errors import Unavailable
from headway.serving.admission import Admission, AdmissionLimits, Verdict
from headway.serving.batching import Batcher
from headway.serving.priority import Priority
from tests.serving.test_batching import Item
from tests.serving.virtual_time import VirtualLoop, run_virtual

BASE, CEILING, PATIENCE_S = 50.0, 400.0, 0.9
P95_S, P99_S = 0.020, 0.045


@dataclass
class Replica:
    """An executor of 4 ms a batch and 1 ms a row, a tenth of that either way: a thousand rows a second at the most."""

    loop: VirtualLoop
    shed: bool = True
    ceiling: float = CEILING
    batch_s: float = 0.004
    row_s: float = 0.001
    dice: random.Random = field(default_factory=lambda: random.Random(5))

    def __post_init__(self) -> None:
        limits = AdmissionLimits(
            rate=1e9,
            burst=20,
            ceiling=self.ceiling,
            deadline_s=P99_S,
            target_s=P95_S,
            max_queued_rows=2_000,
            shed=self.shed,
        )
        self.admission = Admission(limits, self.loop)
        self.batcher: Batcher[Item, int] = Batcher(self.execute, max_rows=512, clock=self.loop)
        self.rules: Batcher[Item, int] = self.batcher.twin()
        self.took: dict[Priority, list[float]] = {priority: [] for priority in Priority}
        self.after_shed: list[float] = []
        self.by_rules = self.expired = 0

    async def execute(self, items: Sequence[Item]) -> Sequence[int | Exception]:
        if not any(item.value for item in items):
            await asyncio.sleep((self.batch_s + self.row_s * len(items)) * self.dice.uniform(0.9, 1.1))
        return [item.value for item in items]

    async def call(self, priority: Priority) -> None:
        start = self.loop.monotonic()
        try:
            verdict = self.admission.admit("a", 1, self.batcher, left_s=PATIENCE_S, priority=priority)
        except Unavailable as error:
            self.after_shed.append(error.retry_after_s)
            return
        queue = self.batcher
        if verdict is Verdict.FALLBACK:
            queue, self.by_rules = self.rules, self.by_rules + 1
        try:
            await queue.submit(Item(int(verdict is Verdict.FALLBACK), 1, start + PATIENCE_S), priority)
        except Unavailable:
            self.expired += 1
            return
        if verdict is Verdict.SCORE:
            self.took[priority].append(self.loop.monotonic() - start)

    async def load(self, per_second: float, seconds: float, *, high: float = 0.0) -> None:
        """Poisson arrivals, answered however they are."""
        end, calls = self.loop.monotonic() + seconds, set[asyncio.Task[None]]()
        while self.loop.monotonic() < end:
            await asyncio.sleep(self.dice.expovariate(per_second))
            priority = Priority.HIGH if self.dice.random() < high else Priority.NORMAL
            calls.add(asyncio.create_task(self.call(priority)))
        await asyncio.gather(*calls)

    def forget(self) -> None:
        for took in self.took.values():
            took.clear()
        self.after_shed.clear()


def quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share))


@pytest.mark.parametrize("times", [10, 100])
def test_in_a_spike_who_is_admitted_is_served_within_the_contract(times: int) -> None:
    loop = VirtualLoop()
    replica = Replica(loop)

    async def work() -> None:
        await replica.load(BASE, 5)
        assert replica.after_shed == []
        replica.forget()
        await replica.load(BASE * times, 4)
        served = replica.took[Priority.NORMAL]
        assert replica.expired == 0
        assert quantile(served, 0.99) <= P99_S
        assert quantile(served, 0.95) <= P95_S * 1.25
        # what a batch of p95 can hold, 16 rows in 20 ms, is 800 a second
        assert len(served) >= 4 * min(BASE * times * 0.85, 500)
        assert all(0 < wait <= 31 for wait in replica.after_shed)
        await asyncio.sleep(1)
        replica.forget()
        await replica.load(BASE, 5)
        assert replica.after_shed == []
        assert quantile(replica.took[Priority.NORMAL], 0.99) <= P95_S

    run_virtual(work(), loop)


@pytest.mark.parametrize("batch_s", [0.008, 0.011])
def test_where_batches_take_too_long_for_p95_the_others_still_get_in_within_p99(batch_s: float) -> None:
    """Whoever comes while a batch runs waits for two: refusing them all would leave the replica idle."""
    loop = VirtualLoop()
    replica = Replica(loop, batch_s=batch_s, row_s=0.0002)

    async def work() -> None:
        await replica.load(BASE, 2)
        replica.forget()
        await replica.load(BASE * 100, 3)
        served = replica.took[Priority.NORMAL]
        assert quantile(served, 0.99) <= P99_S
        assert len(served) >= 3 * 1_000

    run_virtual(work(), loop)


def test_high_calls_pass_a_spike_of_normal_ones() -> None:
    loop = VirtualLoop()
    replica = Replica(loop)

    async def work() -> None:
        await replica.load(BASE * 100, 4, high=0.01)
        assert len(replica.took[Priority.HIGH]) >= 4 * BASE * 0.85
        assert quantile(replica.took[Priority.HIGH], 0.99) <= P99_S
        assert len(replica.took[Priority.NORMAL]) >= 4 * 400

    run_virtual(work(), loop)


def test_below_the_ceiling_a_replica_that_is_too_slow_answers_late_but_never_in_vain() -> None:
    """Its ceiling is out of reach: calls that would be given up are refused at once, the others get their answers."""
    loop = VirtualLoop()
    replica = Replica(loop, ceiling=1e6)

    async def work() -> None:
        await replica.load(2_000, 4)
        served = replica.took[Priority.NORMAL]
        assert len(served) >= 4 * 850
        assert max(served) <= PATIENCE_S + 0.002
        assert replica.expired <= 0.02 * len(served)

    run_virtual(work(), loop)


def test_where_the_contract_says_fallback_everybody_is_answered_at_once() -> None:
    loop = VirtualLoop()
    replica = Replica(loop, shed=False)

    async def work() -> None:
        await replica.load(BASE * 100, 3)
        assert (replica.after_shed, replica.expired) == ([], 0)
        assert replica.by_rules >= 3 * (BASE * 100 - 1_000)
        assert quantile(replica.took[Priority.NORMAL], 0.99) <= P99_S

    run_virtual(work(), loop)
