from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.times import DAY, HOUR, SECOND
from headway.serving import outcome_queue as module
from headway.serving.outcome_queue import OutcomeQueue, Patience


def outcomes(*ids: str) -> pa.Table:
    return pa.table({"decision_id": list(ids), "label": pa.array([1.0] * len(ids), pa.float32())})


class World:
    """Decisions that are committed sooner or later, and what was published of their outcomes."""

    def __init__(self, home: Path, **patience: int) -> None:
        self.queue = OutcomeQueue(home, "returns", Patience(**patience))
        self.decided: set[str] = set()
        self.published: dict[str, list[str]] = {}
        self.given_up: dict[str, list[str]] = {}
        self.looked = 0

    def lookup(self, rows: pa.Table) -> pa.Table:
        self.looked += 1
        return rows.filter(pa.array([item in self.decided for item in rows["decision_id"].to_pylist()], pa.bool_()))

    def publish(self, rows: pa.Table, batch: str) -> None:
        """Take each batch once, as lake and quarantine do."""
        self.published.setdefault(batch, rows["decision_id"].to_pylist())

    def give_up(self, rows: pa.Table, batch: str) -> None:
        self.given_up.setdefault(batch, rows["decision_id"].to_pylist())

    def work(self, now: int) -> int:
        return self.queue.work(self.lookup, self.publish, self.give_up, now)

    def out(self) -> list[str]:
        return sorted(item for batch in self.published.values() for item in batch)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_outcome_waits_for_its_decision(world: World) -> None:
    assert world.work(0) == 0
    world.queue.put(outcomes("a", "b", "c"), "r-1", 0)
    world.decided = {"b"}
    assert world.work(0) == 1
    assert world.queue.waiting() == 2
    world.decided = {"a", "b", "c"}
    assert world.work(5 * SECOND) == 2
    assert world.queue.waiting() == 0
    assert world.out() == ["a", "b", "c"]
    assert world.given_up == {}


def test_looks_become_rarer(world: World) -> None:
    world.queue.put(outcomes("a"), "r-1", 0)
    for now in range(0, HOUR, 5 * SECOND):
        world.work(now)
    assert 8 <= world.looked <= 16


def test_what_waits_too_long_or_is_too_much_is_given_up_oldest_first(tmp_path: Path) -> None:
    world = World(tmp_path, rows=3)
    for place, now in enumerate((0, SECOND, 2 * SECOND)):
        world.queue.put(outcomes(f"a{place}", f"b{place}"), f"r-{place}", now)
    world.work(3 * SECOND)
    assert sorted(world.given_up) == ["r-0", "r-1"]
    world.work(DAY + 3 * SECOND)
    assert world.given_up["r-2"] == ["a2", "b2"]
    assert world.queue.waiting() == 0


def test_many_are_looked_up_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_AT_ONCE", 2)
    world.queue.put(outcomes(*"abcde"), "r-1", 0)
    world.decided = set("abcde")
    assert world.work(0) == 5
    assert world.looked == 3


class Killed(BaseException):
    """What a test raises in place of a death."""


class Killer:
    """Ends the work at its n-th effect on disk or outside, before or after it."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self._left, self._after = at, after
        places: list[tuple[object, str]] = [
            (module, "write_spool"), (Path, "unlink"), (world, "publish"), (world, "give_up")
        ]  # fmt: skip
        for owner, name in places:
            patch.setattr(owner, name, self._mortal(getattr(owner, name)))

    def _mortal(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0 and not self._after:
                raise Killed
            done = real(*given, **named)
            if self._left < 0:
                raise Killed
            return done

        return call


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 11), max_size=6), min_size=1, max_size=5), st.integers(0, 12), st.booleans())
def test_a_death_at_any_effect_loses_nothing_and_publishes_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[set[int]], at: int, after: bool
) -> None:
    """Decisions come in between; the next process has not the memory of the last, only its files."""
    world = World(tmp_path_factory.mktemp("q"))
    names = [f"d{number}" for number in range(12)]
    for batch in range(4):
        world.queue.put(outcomes(*names[3 * batch : 3 * batch + 3]), f"r-{batch}", 0)
    for turn, decided in enumerate(rounds):
        world.decided |= {names[number] for number in decided}
        with pytest.MonkeyPatch.context() as patch:
            Killer(world, patch, at, after=after)
            with suppress(Killed):
                world.work(turn * HOUR)
        world.decided |= {names[(at + turn) % 12]}
    world.decided = set(names)
    world.work(DAY - 1)
    assert world.out() == sorted(names)
    assert world.queue.waiting() == 0
