from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
import redis

from headway.core.clock import SystemClock
from headway.core.control import ControlStore, MemoryControlStore, RedisControlStore
from headway.core.errors import Unavailable
from headway.core.times import DAY, SECOND
from headway.serving import outcome_ids as module
from headway.serving import spool
from headway.serving.decision_ids import DecisionIds
from headway.serving.drain import read_prefix
from headway.serving.outcome_ids import FREE, TAKEN, outcome_ids
from headway.serving.outcomes import Outcomes, OutcomesAnswer, drain_outcomes, outcomes_folder
from headway.serving.protocol import OutcomeRow
from tests.features.conftest import redis_url
from tests.serving.test_spool import Lake

__all__ = ["redis_url"]

NOW = 1_700_000_000_000_000
IDS = DecisionIds(b"k" * 32, "toy")


@pytest.fixture
def redis_store(redis_url: str) -> RedisControlStore:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return RedisControlStore(redis_url)


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> ControlStore:
    found: ControlStore = MemoryControlStore() if request.param == "memory" else request.getfixturevalue("redis_store")
    return found


def test_an_id_is_free_then_taken_then_of_the_first_file(store: ControlStore) -> None:
    seen = outcome_ids(store, "toy")
    one, two = ids = IDS.make(2, NOW)
    assert seen.mark(ids, FREE) == [FREE, FREE]
    assert seen.mark([one], TAKEN) == [FREE]
    assert seen.mark(ids, TAKEN) == [TAKEN, FREE]
    assert seen.mark([one], 7) == [TAKEN]
    assert seen.mark(ids, 8) == [7, TAKEN]
    assert outcome_ids(store, "toy").mark([two, one], FREE) == [8, 7]
    assert outcome_ids(store, "other").mark(ids, FREE) == [FREE, FREE]
    assert seen.mark([], TAKEN) == []


def test_a_busy_day_is_found_again_whole(store: ControlStore) -> None:
    seen = outcome_ids(store, "toy")
    first, second = IDS.make(3_000, NOW), IDS.make(1_500, NOW)
    assert seen.mark(first, TAKEN) == [FREE] * 3_000
    assert seen.mark([*second, *first], FREE) == [*[FREE] * 1_500, *[TAKEN] * 3_000]


def test_an_outcome_takes_less_than_20_bytes_and_expires(redis_store: RedisControlStore, redis_url: str) -> None:
    seen = outcome_ids(redis_store, "toy")
    with redis.Redis.from_url(redis_url) as client:

        def used() -> int:
            found = client.info("memory")
            return int(found["used_memory"] - found["mem_clients_normal"] - found["used_memory_scripts"])

        seen.mark(IDS.make(100, NOW - 99 * DAY), TAKEN)  # what a connection and a script cost is there
        before = used()
        for day in range(4):
            seen.mark(IDS.make(5_000, NOW + day * DAY), 30_000)
        assert (used() - before) / 20_000 < 20
        keys = list(client.scan_iter(count=1_000))
        assert len(keys) > 100
        assert {client.ttl(key) >= 400 * DAY // SECOND for key in keys} == {True}
        assert {client.object("encoding", key) for key in keys} == {b"listpack"}


def test_beyond_the_limit_the_oldest_decisions_are_forgotten(
    redis_store: RedisControlStore, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 1_000)
    seen = outcome_ids(redis_store, "toy")
    old, middle, young = (IDS.make(400, NOW + day * DAY) for day in range(3))
    for ids in (middle, old, young):
        seen.mark(ids, TAKEN)
    assert seen.mark([*middle, *young], FREE) == [TAKEN] * 800
    with redis.Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(f"headway:outcomes:toy:{NOW // DAY}:*")) == []
    assert seen.mark(old, FREE) == [FREE] * 400


def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    seen = outcome_ids(RedisControlStore(f"unix://{tmp_path}/nobody"), "toy")
    with pytest.raises(Unavailable, match="looked up"):
        seen.mark(IDS.make(1, NOW), FREE)


class Dying(MemoryControlStore):
    """Remembers nothing while `dead`, as if the replica had been killed before it could."""

    dead = False

    def put(self, key: str, value: bytes, *, expected: int) -> int:
        if self.dead:
            raise Unavailable("killed", retry_after_s=0)
        return super().put(key, value, expected=expected)


class World:
    """One use case whose replicas die and come back."""

    def __init__(self, home: Path, store: ControlStore | None = None) -> None:
        self.home = home
        self.folder = outcomes_folder(home, "toy")
        self.killed = Dying()
        self.store = store or self.killed
        self.lake = Lake()
        self._replicas = (f"r{number}" for number in count())

    def replica(self) -> Outcomes:
        return Outcomes(
            "toy", ids=IDS, store=self.store, names=("low", "high"), folder=self.folder,
            writer=next(self._replicas), clock=SystemClock(),
        )  # fmt: skip

    def drain(self) -> int:
        return drain_outcomes(self.home, "toy", self.lake, outcome_ids(self.store, "toy"))

    def committed(self) -> list[tuple[str, float]]:
        rows = [row for data in self.lake.batches.values() for row in data.to_pylist()]
        return sorted((row["decision_id"], row["label"]) for row in rows)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def take(replica: Outcomes, ids: Sequence[str], label: int = 1) -> OutcomesAnswer:
    rows = [OutcomeRow(decision_id=item, label=label, event_time=NOW) for item in ids]
    return replica.take(rows, "alice", may_replay=False)


def test_an_accepted_outcome_is_on_disk(tmp_path: Path, store: ControlStore) -> None:
    world = World(tmp_path, store)
    ids = sorted(IDS.make(3, NOW))
    replica = world.replica()
    for item in ids:
        assert take(replica, [item]) == OutcomesAnswer(accepted=1)
        [path] = world.folder.glob("*.open")
        found = read_prefix(path)
        assert found is not None
        assert found["decision_id"].to_pylist()[-1] == item
    assert take(replica, [*ids, *ids], label=0) == OutcomesAnswer(duplicate=6)
    replica.close()
    assert world.drain() == 3
    assert world.committed() == [(item, 1.0) for item in ids]


def test_a_retry_after_a_crash_is_accepted_and_counts_once(world: World) -> None:
    ids = IDS.make(2, NOW)
    first, second = world.replica(), world.replica()
    world.killed.dead = True
    with pytest.raises(Unavailable, match="killed"):
        take(first, ids)
    world.killed.dead = False
    assert take(second, [*ids, ids[0]]) == OutcomesAnswer(accepted=2, duplicate=1)
    first.close()
    assert world.drain() == 2
    second.close()
    assert world.drain() == 0, "both ids belong to the first file"
    assert world.committed() == sorted((item, 1.0) for item in ids)


def test_a_crash_before_the_disk_loses_no_retry(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_SYNC_S", 0.3)
    world.folder.mkdir(parents=True)
    (world.folder / "r0-000001.open").write_bytes(b"")
    [item] = IDS.make(1, NOW)
    first, second = world.replica(), world.replica()
    with pytest.raises(Unavailable, match="not on disk"):
        take(first, [item])
    assert take(second, [item]) == OutcomesAnswer(accepted=1)
    first.close()
    second.close()
    world.drain()
    assert world.committed() == [(item, 1.0)]


def test_a_drain_that_died_before_removing_repeats_itself(world: World) -> None:
    ids = IDS.make(2, NOW)
    first, second = world.replica(), world.replica()
    world.killed.dead = True
    with pytest.raises(Unavailable):
        take(first, ids)
    world.killed.dead = False
    take(second, ids)
    first.close()
    second.close()
    kept = {path: path.read_bytes() for path in world.folder.iterdir()}
    assert world.drain() == 2
    for path, content in kept.items():
        path.write_bytes(content)
    world.drain()
    assert world.committed() == sorted((item, 1.0) for item in ids)


def test_threads_and_replicas_that_race_count_each_outcome_once(tmp_path: Path, redis_store: RedisControlStore) -> None:
    world = World(tmp_path, redis_store)
    ids = IDS.make(60, NOW)
    replicas = [world.replica(), world.replica()]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: take(replicas[n % 2], ids[n : n + 20]), [*range(0, 60, 5)] * 2))
    for replica in replicas:
        replica.close()
    assert sum(answer.accepted for answer in answers) == len(ids)
    assert world.drain() == len(ids)
    assert world.committed() == sorted((item, 1.0) for item in ids)
