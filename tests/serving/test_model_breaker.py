"""A version that keeps failing is left alone; one batch at a time finds out whether it has recovered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np

from headway.core.clock import ManualClock
from headway.core.types import Matrix
from headway.serving.breaker import State
from tests.serving.helpers import FakeModel, Toy
from tests.serving.test_service import body


class Broken(FakeModel):
    mended = False

    def predict(self, matrix: Matrix) -> Matrix:
        self.batches.append(len(matrix))
        if not self.mended:
            raise RuntimeError("out of memory")
        return np.full(len(matrix), 0.9, np.float32)


async def decide(toy: Toy, amount: float = 90) -> dict[str, Any]:
    status, _, answer = await toy.http("POST", "/v1/decisions", body(amount))
    assert status == 200
    decision: dict[str, Any] = json.loads(answer)["decisions"][0]
    return decision


def states(toy: Toy) -> dict[str, State]:
    return {breaker.name: breaker.state for breaker in toy.scorer.breakers()}


def test_a_broken_champion_is_skipped_and_found_again(tmp_path: Path) -> None:
    clock, champion, previous = ManualClock(), Broken("8"), FakeModel("7")
    toy = Toy(tmp_path, clock=clock)
    toy.steps = [("champion", champion), ("previous", previous)]

    async def work(t: Toy) -> None:
        for _ in range(20):
            assert (await decide(t))["arm"] == "previous"
        assert len(champion.batches) == 5
        assert states(t) == {"features": State.CLOSED, "model:champion": State.OPEN, "model:previous": State.CLOSED}
        clock.advance(1_000_000)
        # the trial is one batch, and its calls are answered by the next step when it fails
        assert {item["arm"] for item in await asyncio.gather(*(decide(t) for _ in range(30)))} == {"previous"}
        assert len(champion.batches) == 6
        assert states(t)["model:champion"] is State.OPEN
        champion.mended = True
        assert (await decide(t))["arm"] == "previous"
        clock.advance(1_000_000)
        assert (await decide(t))["arm"] == "champion"
        assert states(t)["model:champion"] is State.CLOSED

    toy.call(work)


def test_with_many_calls_waiting_a_broken_champion_costs_few_executions(tmp_path: Path) -> None:
    champion, previous = Broken("8"), FakeModel("7")
    toy = Toy(tmp_path, clock=ManualClock())
    toy.steps = [("champion", champion), ("previous", previous)]

    async def work(t: Toy) -> None:
        arms = [item["arm"] for item in await asyncio.gather(*(decide(t) for _ in range(64)))]
        assert arms == ["previous"] * 64
        assert len(champion.batches) <= 5 + 2 * 6 + 1

    toy.call(work)


def test_poison_rows_among_good_ones_open_nothing(tmp_path: Path) -> None:
    toy = Toy(tmp_path, clock=ManualClock())

    async def work(t: Toy) -> None:
        amounts = [666 if index % 9 == 0 else 90 for index in range(64)]
        arms = [item["arm"] for item in await asyncio.gather(*(decide(t, amount) for amount in amounts))]
        assert arms == ["rules" if amount == 666 else "champion" for amount in amounts]
        assert states(t)["model:champion"] is State.CLOSED

    toy.call(work)


def test_a_new_version_starts_with_a_closed_breaker(tmp_path: Path) -> None:
    toy = Toy(tmp_path, clock=ManualClock())
    toy.steps = [("champion", Broken("8"))]

    async def work(t: Toy) -> None:
        for _ in range(6):
            assert (await decide(t))["arm"] == "rules"
        t.steps = [("champion", FakeModel("9"))]
        assert (await decide(t))["arm"] == "champion"

    toy.call(work)
