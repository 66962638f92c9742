from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from headway.core.clock import SystemClock
from headway.core.control import MemoryControlStore
from headway.core.counts import MemoryCountsChannel
from headway.core.errors import ServiceFailed, Tampered, Unavailable
from headway.core.routing import VersionRef
from headway.governance.statement import sign_version, verify_version
from headway.models.artefact import Artefact, load_artefact
from headway.models.backends.xgboost import XGBoostBackend
from headway.models.warmup import Warmup
from headway.serving import metrics as m
from headway.serving import readiness
from headway.serving.assembly import Assembly
from headway.serving.drivers import Drivers
from headway.serving.http import Request
from headway.serving.objectives import Objectives
from tests.features.streams.world import until
from tests.models.conftest import Made, make_version
from tests.serving.helpers import FakeReader, FakeVerifier, principal, rules, run, service, terms
from tests.serving.test_host import load, route

READY = Request(method="GET", path="/v2/health/ready", body=b"", request_id="r")


class World:
    """One replica of the toy, all of it in memory but its spools."""

    def __init__(self, folder: Path, *, with_rules: bool = True, **changes: Any) -> None:
        self.reader = FakeReader()
        self.store = MemoryControlStore()
        changes.setdefault("ladder", ("rules",) if with_rules else ())
        self.assembly = Assembly(
            "toy",
            home=folder,
            service=service,
            terms=terms(**changes),
            rules=rules if with_rules else None,
            drivers=Drivers(
                store=self.store, channel=MemoryCountsChannel(), reader=self.reader,
                verifier=FakeVerifier(principal("alice", "decide:toy")), load=load, clock=SystemClock(),
            ),
            replica="r",
            objectives=Objectives(p95_s=0.02, p99_s=0.05, availability=0.99),
        )  # fmt: skip

    async def asked(self) -> tuple[int, dict[str, Any]]:
        answer = await self.assembly.service.respond(READY)
        return answer.status, json.loads(answer.body)

    def during(self, work: Callable[[], Any], *, champion: str | None = "1") -> Any:
        """Run between start and stop."""

        async def main() -> Any:
            if champion is not None:
                route(self.store, champion)
            self.assembly.host.start()
            await self.assembly.start()
            try:
                return await work()
            finally:
                await self.assembly.stop()

        return run(main())


def no_tables(world: World) -> None:
    """Replace the counting of served values, which the toy's versions know nothing of."""
    world.assembly.telemetry._outside = lambda version, batches: {}


def test_all_parts_are_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    status, body = world.during(world.asked)
    assert (status, body["ready"], body["version"]) == (200, True, "1")
    assert body["parts"] == {"model": "ok", "background": "ok", "decision_log": "ok", "features": "ok"}


def test_without_a_model_or_before_its_work_began_it_is_not_ready(tmp_path: Path) -> None:
    world = World(tmp_path)
    status, body = world.during(world.asked, champion=None)
    assert (status, body["ready"], body["parts"]["model"]) == (503, False, "no version serves")
    status, body = run(world.asked())
    assert (status, body["parts"]["background"]) == (503, "not started")


def test_a_background_task_that_ended_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def work() -> tuple[int, dict[str, Any]]:
        world.assembly._tasks[1].cancel()
        with suppress(asyncio.CancelledError):
            await world.assembly._tasks[1]
        return await world.asked()

    status, body = world.during(work)
    assert (status, body["parts"]["background"]) == (503, "a background task ended")


@pytest.mark.parametrize("log", ["decisions", "outcomes"])
def test_a_log_whose_thread_ended_fails_the_health_check(
    tmp_path: Path, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    spool: Any = world.assembly.recorder.spool if log == "decisions" else world.assembly.outcomes._spool

    async def work() -> tuple[int, dict[str, Any]]:
        world.assembly.require_alive()
        with monkeypatch.context() as patch:
            patch.setattr(spool, "_thread", threading.Thread())
            with pytest.raises(ServiceFailed, match="thread of a log"):
                world.assembly.require_alive()
            return await world.asked()

    _, body = world.during(work)
    assert body["parts"]["decision_log"] == ("its thread ended" if log == "decisions" else "ok")
    world.assembly.require_alive()  # closed on purpose


def test_a_full_durable_log_is_not_ready_and_a_lossy_one_counts(tmp_path: Path) -> None:
    world = World(tmp_path)
    spool = world.assembly.recorder.spool

    async def work() -> tuple[int, dict[str, Any]]:
        spool._waiting_rows += 300_000
        answer = await world.asked()
        spool._waiting_rows -= 300_000
        assert (await world.asked())[0] == 200
        return answer

    status, body = world.during(work)
    assert (status, body["parts"]["decision_log"]) == (503, "full: the disk is slow or away")


@pytest.mark.parametrize(
    ("with_rules", "on_stale", "ready"), [(True, "reject", True), (False, "null", True), (False, "reject", False)]
)
def test_without_the_online_store_it_is_ready_only_where_the_contract_falls_back(
    tmp_path: Path, with_rules: bool, on_stale: str, ready: bool
) -> None:
    from headway.serving.terms import Freshness

    clauses = tuple(Freshness(view=name, max_lag=5_000_000, on_stale=on_stale) for name in ("activity", "shops"))
    world = World(tmp_path, with_rules=with_rules, freshness=clauses)
    world.reader.failure = Unavailable("redis://:secret@host is away", retry_after_s=1)

    async def work() -> list[tuple[int, dict[str, Any]]]:
        away = await world.asked()
        world.reader.failure = None
        await world.assembly._features.look()
        return [away, await world.asked()]

    away, back = world.during(work)
    assert (away[0] == 200) is ready
    assert "secret" not in str(away[1]["parts"])
    assert back[0] == 200


def test_looking_at_the_store_outlives_any_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LOOK_S", 0.01)
    world = World(tmp_path)
    world.reader.failure = ValueError("a reply that nobody expected")
    looks = world.reader.batches

    async def work() -> tuple[int, dict[str, Any]]:
        await asyncio.get_running_loop().run_in_executor(None, until, lambda: len(looks) > 3)
        assert not world.assembly._features.reachable
        world.assembly.require_alive()
        return await world.asked()

    assert world.during(work)[1]["parts"]["background"] == "ok"


def test_liveness_is_another_question(tmp_path: Path) -> None:
    world = World(tmp_path)
    live = run(world.assembly.service.respond(Request(method="GET", path="/v2/health/live", body=b"")))
    assert live.status == 200
    run(world.assembly.stop())


def test_what_the_parts_count_is_shown(tmp_path: Path) -> None:
    world = World(tmp_path)
    no_tables(world)
    spool = world.assembly.recorder.spool

    async def work() -> None:
        body = b'{"rows": [{"customer_id": 1, "shop": "a", "amount": 1}]}'
        request = Request(method="POST", path="/v1/decisions", body=body, token="alice", idempotency_key="k")
        for _ in range(2):
            assert (await world.assembly.service.respond(request)).status == 200
        await asyncio.get_running_loop().run_in_executor(None, until, lambda: spool.written == 1)
        world.assembly.telemetry.collect(world.assembly.service._meter.take())

    world.during(work)
    table = world.assembly.telemetry.table
    shown = {
        "written": table.value(m.LOG_ROWS, "toy", "written"),
        "dropped": table.value(m.LOG_ROWS, "toy", "dropped"),
        "waiting": table.value(m.LOG_WAITING, "toy"),
        "replays": table.value(m.REPLAYS, "toy"),
        "ready": table.value(m.READY, "toy"),
        "serving": table.value(m.SERVING, "toy", "1", "champion"),
        "breakers": table.labelled(m.BREAKERS),
    }
    assert shown == {
        "written": 1, "dropped": 0, "waiting": 0, "replays": 1, "ready": 1, "serving": 1,
        "breakers": {("toy", "features"): 0, ("toy", "model:champion"): 0},
    }  # fmt: skip
    assert table.value(m.GENERATION, "toy") >= 0


def test_a_lossy_log_that_is_full_drops_rows_and_says_how_many(tmp_path: Path) -> None:
    world = World(tmp_path, durable=False)
    no_tables(world)
    spool = world.assembly.recorder.spool
    spool._full_rows = 2

    async def work() -> None:
        for rows in (3, 1, 5):
            body = json.dumps({"rows": [{"customer_id": 1, "shop": "a", "amount": 1}] * rows}).encode()
            request = Request(method="POST", path="/v1/decisions", body=body, token="alice")
            assert (await world.assembly.service.respond(request)).status == 200
            assert (await world.asked())[0] == 200
        await asyncio.get_running_loop().run_in_executor(None, until, lambda: spool.written == 1)
        world.assembly.telemetry.collect(world.assembly.service._meter.take())

    world.during(work)
    table = world.assembly.telemetry.table
    assert table.labelled(m.LOG_ROWS) == {("toy", "written"): 1, ("toy", "dropped"): 8}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    home = tmp_path_factory.mktemp("home")
    yield make_version(home, home / "models" / "fraud-1")


def loaded(made: Made, folder: Path) -> Artefact:
    return load_artefact(folder, verify_version(folder, made.trust, name="fraud", clock=SystemClock()), trial=False)


def test_a_version_whose_outputs_differ_never_becomes_ready(tmp_path: Path, made: Made) -> None:
    folder = Path(shutil.copytree(made.folder, tmp_path / "2"))
    warmup = msgspec.json.decode((folder / "warmup.json").read_bytes(), type=Warmup)
    assert len(warmup.rows) == 64
    changed = msgspec.structs.replace(warmup, expected=(*warmup.expected[:-1], warmup.expected[-1] + 1e-4))
    (folder / "warmup.json").write_bytes(msgspec.json.encode(changed))
    sign_version(folder, made.fields, made.signer)  # rightly signed: only the warm-up can tell
    world = World(tmp_path)

    def real(ref: VersionRef) -> Artefact:
        return loaded(made, made.folder if ref.version == "1" else folder)

    world.assembly.host._load = real

    async def work() -> list[tuple[int, dict[str, Any]]]:
        answers = [await world.asked()]
        for version in ("2", "1"):
            route(world.store, version)
            await world.assembly.host.poll()
            answers.append(await world.asked())
        return answers

    none, bad, good = world.during(work, champion=None)
    assert [answer[0] for answer in (none, bad, good)] == [503, 503, 200]
    assert bad[1]["error"] == "the routed version, or the record of it, cannot be used"  # strangers may ask
    fresh = World(tmp_path / "again")
    fresh.assembly.host._load = real
    with pytest.raises(Tampered, match="warm-up row 63"):
        fresh.during(fresh.asked, champion="2")


def test_warm_up_takes_single_rows_and_the_whole_batch(made: Made) -> None:
    sizes: list[int] = []
    backend = XGBoostBackend((made.folder / "model.json").read_bytes())

    class Watched:
        name = "watched"

        def predict(self, matrix: Any) -> Any:
            assert matrix.dtype == "float32"
            assert matrix.flags.c_contiguous
            sizes.append(len(matrix))
            return backend.predict(matrix)

    artefact = loaded(made, made.folder)
    artefact.warmup.check(cast(Any, Watched()))
    assert sorted(sizes) == [1] * 64 + [64]
