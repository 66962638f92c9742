"""Decisions and outcomes of fraud through the real request path, spools, lake and servers."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from features.fraud import fraud_outcomes, fraud_v1, terminal_risk
from headway.cluster import outcomes as module
from headway.cluster.compose import Installation
from headway.cluster.ingesting import ingest_rows
from headway.cluster.outcomes import OutcomeFeed
from headway.cluster.spools import drain_spools
from headway.cluster.stream_parts import views_of
from headway.core.clock import ManualClock
from headway.core.counts import MemoryCountsChannel
from headway.core.errors import DefinitionError
from headway.core.settings import Settings, load_settings
from headway.core.times import DAY, HOUR, SECOND, format_time
from headway.core.types import Columns, Principal
from headway.features.historical import offline_features
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location, open_catalog
from headway.features.online import OnlineReader
from headway.features.quality.quarantine import State
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.parts import Parts
from headway.features.streams.processor import PartitionProcessor
from headway.features.streams.segment import Limits
from headway.governance.audit_event import MemoryAudit
from headway.serving.assembly import Assembly
from headway.serving.drivers import Drivers
from headway.serving.fallback import Rules
from headway.serving.http import Request
from headway.serving.objectives import Objectives
from headway.serving.outcome_queue import Patience
from tests.conftest import ROOT
from tests.features.valkey import Valkey
from tests.serving.helpers import FakeVerifier, terms

NOW = 1_533_686_400_000_000
RULES = Rules(use_case="fraud", score=lambda columns: np.full(len(columns["amount"]), 0.25))


class World:
    """An installation without Ray, and one replica of fraud that has no model: the rules answer."""

    def __init__(self, home: Path, url: str) -> None:
        self.settings: Settings = load_settings(
            home=home, project=ROOT, redis_features_url=url, redis_control_url=url, stream_url=url
        )
        self.url, self.clock, self.home = url, ManualClock(NOW), home
        at = self.at = Installation(self.settings, writer="test", clock=self.clock)
        location = Location.of(self.settings)
        at.committer = cast(Any, Committer(location, self.clock))
        at.audit = cast(Any, MemoryAudit(self.clock))
        at.reader = LakeReader(location, at.audit, self.clock)
        privacy = SimpleNamespace(purposes=("fraud_prevention",))
        for name, stands_in in {
            "contract": lambda use_case: SimpleNamespace(contract=SimpleNamespace(privacy=privacy)),
            "workload": self.workload,
        }.items():
            setattr(at, name, stands_in)
        self.replicas = 0

    def workload(self, sub: str, scopes: Sequence[str], purpose: str) -> Principal:
        return Principal(sub=sub, kind="workload", scopes=frozenset(scopes), purpose=purpose, expires=2**60)

    def replica(self, reader: OnlineReader) -> Assembly:
        self.replicas += 1
        who = self.workload("shop", ["decide:fraud", "outcomes:fraud", "replay:fraud"], "testing")
        drivers = Drivers(
            store=self.at.control, channel=MemoryCountsChannel(), reader=reader,
            verifier=FakeVerifier(who), load=cast(Any, None), clock=self.clock,
        )  # fmt: skip
        return Assembly(
            "fraud", home=self.home, service=fraud_v1, terms=terms(freshness=(), names=("allow", "block")),
            rules=RULES, drivers=drivers, replica=f"r{self.replicas}",
            objectives=Objectives(p95_s=0.02, p99_s=0.05, availability=0.999),
        )  # fmt: skip

    def post(self, path: str, *bodies: Any) -> list[Any]:
        """Send bodies to a replica, which writes its spools and goes."""

        async def send() -> list[Any]:
            reader = OnlineReader(fraud_v1, self.url, timeout_s=10.0)
            replica = self.replica(reader)
            answers = []
            for body in bodies:
                request = Request(
                    method="POST", path=path, body=json.dumps(body).encode(), token="shop", request_id="q"
                )
                answer = await replica.service.respond(request)
                assert answer.status == 200, answer.body
                answers.append(json.loads(answer.body))
            await replica.stop()
            await reader.close()
            return answers

        return asyncio.run(send())

    def decide(self, rows: Sequence[dict[str, Any]], **more: Any) -> list[str]:
        (answer,) = self.post("/v1/decisions", {"rows": list(rows), **more})
        assert {decision["arm"] for decision in answer["decisions"]} == {"rules"}
        return [decision["decision_id"] for decision in answer["decisions"]]

    def label(self, ids: Sequence[str], labels: Sequence[int], known: int | None = None) -> Any:
        given = {} if known is None else {"known_time": format_time(known)}
        rows = [
            {"decision_id": item, "label": label, "event_time": format_time(self.clock.now()), **given}
            for item, label in zip(ids, labels, strict=True)
        ]
        return self.post("/v1/outcomes", {"outcomes": rows})[0]

    def drain(self) -> int:
        return drain_spools(self.at, "fraud")

    def events(self) -> pa.Table:
        return self.at.reader.scan(fraud_outcomes, self.workload("a", ["data:read"], "monitoring"), "monitoring")

    def rows(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (
            open_catalog(Location.of(self.settings)).load_table(table).scan().to_arrow().to_pylist()
        )
        return found

    def online(self, terminals: Sequence[int], at: int) -> dict[str, np.ndarray]:
        """Return terminal risk as a decision reads it."""
        count = len(terminals)
        keys: Columns = {"customer_id": np.zeros(count, np.int64), "terminal_id": np.array(terminals, np.int64)}

        async def read() -> dict[str, np.ndarray]:
            reader = OnlineReader(fraud_v1, self.url, timeout_s=10.0)
            found = (await reader.read(keys, np.full(count, at, np.int64))).columns
            await reader.close()
            return {name: found[name] for name in terminal_risk.features}

        return asyncio.run(read())

    def offline(self, terminals: Sequence[int], at: int) -> dict[str, np.ndarray]:
        """Return the same from the lake."""
        count = len(terminals)
        spine = pa.table(
            {
                "customer_id": pa.array([0] * count, pa.int64()),
                "terminal_id": pa.array(terminals, pa.int64()),
                "amount": pa.array([1.0] * count, pa.float32()),
                "event_time": pa.array([at] * count, pa.int64()),
            }
        )
        self.at.committer.ensure(fraud_v1.stored[0].source)
        who = self.workload("a", ["data:read"], "monitoring")
        found = offline_features(spine, fraud_v1, self.at.reader, who, "monitoring")
        return {name: found[name].to_numpy() for name in terminal_risk.features}


@pytest.fixture
def server() -> Iterator[Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="v"))
    server = Valkey(folder)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def world(tmp_path: Path, server: Valkey, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "_running", lambda at, source: None)
    return World(tmp_path / "home", server.url)


def payment(identity: int | None, terminal: int, amount: float = 10.5) -> dict[str, Any]:
    own = {} if identity is None else {"transaction_id": identity}
    return {"customer_id": 1_000 + terminal, "terminal_id": terminal, "amount": amount, **own}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in terminal_risk.features)


def test_a_terminal_is_known_as_risky_seven_days_after_its_decisions(world: World) -> None:
    """What a decision reads then has changed, and is what the offline join says."""
    terminals, moments = [7, 8], [NOW + 7 * DAY - HOUR, NOW + 7 * DAY + HOUR, NOW + 9 * DAY]
    ids = world.decide([payment(1, 7), payment(2, 7), payment(None, 8), payment(4, 8)])
    before = world.online(terminals, moments[1])
    world.clock.advance(2 * DAY)
    assert world.label(ids, [1, 1, 0, 1]) == {"accepted": 4, "duplicate": 0, "unknown": 0}
    assert world.drain() == 8
    events = world.events().sort_by("transaction_id").to_pylist()
    assert [row["transaction_id"] for row in events][1:] == [1, 2, 4]
    assert events[0]["transaction_id"] < 0
    assert {row["scenario"] for row in events} == {None}
    assert {row["known_time"] for row in events} == {NOW + 2 * DAY}
    assert {row["event_time"] for row in events} == {NOW}
    world.clock.advance(8 * DAY)
    for moment in moments:
        assert same(world.online(terminals, moment), world.offline(terminals, moment))
    early, late = (world.online(terminals, moment) for moment in moments[:2])
    assert same(early, before)
    assert late["terminal_risk__is_fraud_sum_7d"].tolist() == [2.0, 1.0]
    assert late["terminal_risk__count_1d"].tolist() == [2.0, 2.0]
    assert world.drain() == 0


def test_an_outcome_that_also_comes_in_a_file_is_one_event(world: World) -> None:
    """Whichever comes first, a feature counts it once, and so does whoever reads labels."""
    posted, filed = [1, 2, 3], [2, 3, 4]
    ids = world.decide([payment(identity, 7) for identity in posted])
    history = pa.table(
        {
            "transaction_id": filed,
            "customer_id": [1_007] * 3,
            "terminal_id": [7] * 3,
            "amount": pa.array([10.5] * 3, pa.float32()),
            "is_fraud": [1] * 3,
            "scenario": [2] * 3,
            "event_time": [NOW] * 3,
            "known_time": [NOW + DAY] * 3,
        }
    )
    world.clock.advance(DAY)
    world.label(ids, [1, 1, 1])
    for batch in range(2):
        ingest_rows(
            world.at, fraud_outcomes, history, views_of(world.at, fraud_outcomes), f"file-{batch}",
            principal=world.workload("a", [f"ingest:{fraud_outcomes.name}"], "monitoring"), quality=world.at.quality,
        )  # fmt: skip
        world.drain()
    world.clock.advance(8 * DAY)
    moment = NOW + 8 * DAY
    assert sorted(world.events()["transaction_id"].to_pylist()) == [1, 2, 2, 2, 3, 3, 3, 4, 4]
    assert world.online([7], moment)["terminal_risk__is_fraud_sum_7d"].tolist() == [4.0]
    assert same(world.online([7], moment), world.offline([7], moment))


def test_one_event_decided_on_twice_is_one_event(world: World) -> None:
    ids = world.decide([payment(5, 7), payment(5, 7)])
    world.label(ids, [1, 1])
    world.drain()
    assert world.events()["transaction_id"].to_pylist() == [5]


def test_an_outcome_waits_for_a_decision_that_is_not_in_the_lake_yet(world: World) -> None:
    decisions = world.home / "spool" / "decisions.fraud"
    (first,) = world.decide([payment(1, 7)])
    away = world.home / "away"
    shutil.move(decisions, away)
    world.label([first], [1])
    assert world.drain() == 1
    with pytest.raises(Exception, match=r"events\.fraud_outcomes"):
        world.events()
    shutil.rmtree(decisions, ignore_errors=True)
    shutil.move(away, decisions)
    world.clock.advance(10 * SECOND)
    assert world.drain() == 1
    assert world.events()["transaction_id"].to_pylist() == [1]


def test_an_outcome_whose_decision_never_comes_is_a_dead_letter(world: World) -> None:
    ids = world.decide([payment(1, 7)])
    shutil.rmtree(world.home / "spool" / "decisions.fraud")
    world.label(ids, [1])
    world.drain()
    world.clock.advance(DAY)
    world.drain()
    (letter,) = world.rows("streams.dead_letters")
    assert (letter["source"], letter["topic"]) == (fraud_outcomes.name, "outcomes.fraud")
    assert letter["reason"] == "no such decision came to the log in 1d"
    assert OutcomeFeed(world.at, "fraud", Patience()).work() == 0


def test_an_odd_row_is_held_alone_and_an_impossible_one_is_a_dead_letter(world: World) -> None:
    late = format_time(NOW + 100 * DAY)
    ids = world.decide([payment(1, 7), payment(2, 7, 99_999.0), payment(3, 7, 1e30)])
    ids += world.decide([payment(4, 7)], as_of=late)
    world.label(ids, [1, 1, 1, 1])
    world.drain()
    world.drain()
    assert world.events()["transaction_id"].to_pylist() == [1]
    (case,) = world.at.quality.quarantine.cases()
    assert sorted(world.at.quality.quarantine.rows(case)["transaction_id"].to_pylist()) == [2, 3]
    assert case.state == State.HELD
    (letter,) = world.rows("streams.dead_letters")
    assert letter["reason"] == "event_time: is more than 1h after the clock"


def test_known_time_may_be_set_for_replays_only(world: World) -> None:
    ids = world.decide([payment(1, 7)], as_of=format_time(NOW - 30 * DAY))
    world.label(ids, [1], known=NOW - 23 * DAY)
    world.drain()
    (row,) = world.events().to_pylist()
    assert (row["event_time"], row["known_time"]) == (NOW - 30 * DAY, NOW - 23 * DAY)


def test_a_running_stream_takes_the_events(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = RedisStream(world.url)
    topic = stream.create(fraud_outcomes.name, partitions=1)
    monkeypatch.setattr(module, "_running", lambda at, source: (stream, topic))
    ids = world.decide([payment(1, 7), payment(None, 8)])
    world.label(ids, [1, 0])
    world.drain()
    assert sorted(message.key for message in stream.read(topic, 0, 0, limit=9)) == [b"7", b"8"]
    parts = Parts(
        stream=stream, topic=topic.name, source=fraud_outcomes, views=(terminal_risk,), committer=world.at.committer,
        online_url=world.url, history=None, refill=None, control=world.at.control, clock=world.clock,
        principal=lambda: world.workload("s", [f"ingest:{fraud_outcomes.name}"], "monitoring"), audit=world.at.audit,
        limits=Limits(),
    )  # fmt: skip
    processor = PartitionProcessor(parts, 0)
    assert processor.step() == 2
    processor.flush()
    world.clock.advance(8 * DAY)
    moment = NOW + 7 * DAY + HOUR
    assert world.online([7, 8], moment)["terminal_risk__is_fraud_sum_7d"].tolist() == [1.0, 0.0]
    assert same(world.online([7, 8], moment), world.offline([7, 8], moment))


class Killed(BaseException):
    """What a test raises in place of a death."""


@pytest.mark.soak
def test_a_drainer_killed_at_any_effect_loses_nothing_and_doubles_nothing(world: World) -> None:
    """Each effect on lake, disk and stores is once the last one; the next drainer finds only what is on disk."""
    places: list[tuple[Any, str]] = [
        (Committer, "append_many"), (module, "ingest_rows"), (Path, "unlink"), (Path, "replace"),
        (type(world.at.online), "write"),
    ]  # fmt: skip
    decided: list[int] = []
    deaths = 0
    for at in range(60):
        ids = world.decide([payment(2 * at, at), payment(2 * at + 1, at)])
        world.label(ids, [1, 0])
        decided += [2 * at, 2 * at + 1]
        left = [at // 2]

        def mortal(real: Callable[..., Any], after: bool = bool(at % 2), left: list[int] = left) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] < 0 and not after:
                    raise Killed
                done = real(*given, **named)
                if left[0] < 0:
                    raise Killed
                return done

            return call

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in places:
                patch.setattr(owner, name, mortal(getattr(owner, name)))
            try:
                world.drain()
                break
            except Killed:
                deaths += 1
        world.clock.advance(10 * SECOND)
    world.drain()
    assert deaths >= 20
    assert sorted(world.events()["transaction_id"].to_pylist()) == decided
    assert sorted(row["transaction_id"] for row in world.rows("decisions.fraud")) == decided
    world.clock.advance(8 * DAY)
    terminals = list(range(len(decided) // 2))
    found = world.online(terminals, world.clock.now())
    assert found["terminal_risk__count_30d"].tolist() == [2.0] * len(terminals)
    assert same(found, world.offline(terminals, world.clock.now()))
    assert not list((world.home / "spool").rglob("*.arrow*"))


def test_definitions_that_do_not_fit_stop_outcomes_and_not_decisions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = world.decide([payment(1, 7)])
    world.label(ids, [1])

    def wrong(*_: object) -> None:
        raise DefinitionError("no use case 'frod'", field="fraud_outcomes.outcomes.use_case")

    with monkeypatch.context() as patch:
        patch.setattr(module, "outcome_sources", wrong)
        with pytest.raises(Exception, match="frod"):
            world.drain()
    assert len(world.rows("decisions.fraud")) == 1
    assert world.drain() == 1
    assert world.events()["transaction_id"].to_pylist() == [1]
