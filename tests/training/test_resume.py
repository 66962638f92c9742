"""A training that was killed, failed or repeated goes on where it was, and never leaves half a version."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import Conflict, GateFailed, NotFound, Unavailable
from headway.core.settings import load_settings
from headway.core.times import HOUR
from headway.features.lake.pins import TrainingPins
from headway.governance.keys import trust_root
from headway.governance.statement import verify_version
from headway.models.artefact import read_definition
from headway.training import steps, steps_signed
from headway.training.gates.document import GATES_FILE, verify_report
from headway.training.gates.judge import Against
from headway.training.journal import FILE, RunRecord, read_run, unfinished, write_run
from headway.training.pipeline import cache_folder
from headway.training.reproduce import reproduce
from tests.conftest import ROOT
from tests.training import world
from tests.training.bench import Bench, fit_here, make_bench

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # the registry's own store warns about SQLAlchemy from inside
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
]
STAGES = ["snapshot", "dataset", "train", "evaluate", "gates", "sign", "register"]


@pytest.fixture(scope="module")
def shared(ray_session: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Return a bench that the tests of this file share: what one made, the next finds in the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headway.training.steps.fit", fit_here)
        yield make_bench(load_settings(home=tmp_path_factory.mktemp("resume") / "home", project=ROOT))


def states(bench: Bench) -> dict[str, str]:
    """Return version → state."""
    found = bench.registry.versions("shop", world.principal(bench.clock))
    return {item.version: item.state for item in found}


def cached(bench: Bench) -> list[str]:
    return [name for name, notes in bench.notes().items() if "cached" in notes]


def test_mlflow_down_in_the_middle_of_a_registration(shared: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    before = states(shared)
    told = MlflowClient.set_model_version_tag

    def down(self: Any, name: str, version: str, key: str, value: str) -> None:
        if key == "headway.state":
            raise MlflowException("connection refused")  # files and other tags are there already
        told(self, name, version, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_model_version_tag", down)
        with pytest.raises(Unavailable, match="the registry does not answer"):
            shared.train(world.job)
    (half,) = states(shared).keys() - before.keys()
    assert states(shared)[half] == "reserved"

    trained = shared.train(world.job)
    assert trained.ref.version == half
    assert states(shared) == before | {half: "ready"}
    assert cached(shared) == STAGES[:-1]
    assert ("train.sign", "cached") in [(action, said.split()[0]) for action, said in shared.acts()]
    run = MlflowClient(f"sqlite:///{shared.settings.home}/registry.db").get_run(trained.statement.run_id)
    assert {name.split(".")[1] for name in run.data.tags if name.startswith("stage.")} == set(STAGES)
    assert run.data.metrics["stage.dataset.cached"] == 1.0
    assert "stage.train.seconds" in run.data.metrics

    again = shared.train(world.job)  # equal inputs: the same version, nothing is made
    assert again.ref == trained.ref
    assert (again.metrics, again.gates) == (trained.metrics, trained.gates)
    assert set(STAGES[1:]) <= set(cached(shared))
    assert states(shared) == before | {half: "ready"}


def test_a_killed_run_goes_on_with_its_snapshots_and_an_unfinished_one_is_known(
    shared: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(world.job, seed=8)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            shared.train(job)
    assert list((cache_folder(shared.settings, "shop") / "stages" / "train").glob(".*")) == []
    stopped = read_run(cache_folder(shared.settings, "shop"))
    assert stopped is not None
    assert not stopped.finished
    monkeypatch.setattr(shared.reader, "snapshot", lambda _: pytest.fail("the snapshots of the killed run are kept"))
    shared.train(job)
    assert cached(shared) == ["snapshot", "dataset"]
    after = read_run(cache_folder(shared.settings, "shop"))
    assert after is not None
    assert (after.run, after.finished) == (stopped.run, True)


def test_damage_in_the_cache_is_said_and_made_again(shared: Bench) -> None:
    job = replace(world.job, seed=9)
    first = shared.train(job)
    root = cache_folder(shared.settings, "shop") / "stages"
    for path in (*root.glob("dataset/*/*.parquet"), *root.glob("train/*/xgboost.model")):
        path.write_bytes(path.read_bytes()[:-7])
    again = shared.train(job)
    for stage in ("dataset", "train"):
        assert "cannot be used" in shared.notes()[stage][0]
        assert "cached" not in shared.notes()[stage]
    assert again.ref == first.ref


@pytest.mark.soak
def test_a_contract_that_changed_meanwhile_is_not_signed_for(shared: Bench) -> None:
    job, before = replace(world.job, seed=10), states(shared)
    changed = world.contract(world.CONTRACT.replace("floor: 0.6", "floor: 0.61"))
    with pytest.raises(Conflict, match="the contract of shop changed while the model was trained"):
        shared.train(job, contract_now=lambda: changed)
    assert states(shared) == before
    trained = shared.train(job, contract=changed, contract_now=lambda: changed)
    assert trained.statement.contract_sha256 == changed.sha256
    assert cached(shared) == ["dataset", "train", "evaluate"]


class Expired:
    """Pins for which the first snapshots that a run goes on with have expired."""

    def __init__(self) -> None:
        self.held: list[Mapping[str, int]] = []
        self.gone = True

    def hold(self, pin: str, snapshots: Mapping[str, int]) -> None:
        if self.gone and pin.startswith("run:"):
            raise NotFound("snapshot", "1")
        self.held.append(snapshots)

    def release(self, pin: str, tables: Collection[str]) -> None:
        """Nothing was pinned for good."""


@pytest.mark.soak
def test_a_snapshot_that_is_gone_is_taken_anew(shared: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job, pins = replace(world.job, seed=11), Expired()
    with monkeypatch.context() as patch:
        patch.setattr(steps, "fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shared.train(job)

    def newest(*_: Any, **__: Any) -> dict[str, int]:
        pins.gone = False
        return {table: shared.reader.snapshot(table) for table in ("events.returns", "events.visits")}

    monkeypatch.setattr(steps, "pin_snapshots", newest)
    shared.train(job, pins=TrainingPins(pins, shared.clock))
    assert "cached" not in shared.notes()["snapshot"]
    assert pins.held[-1] == newest()  # for the version, for good


@pytest.mark.soak
@pytest.mark.parametrize("known", [True, False])
def test_a_version_reserved_by_a_killed_run_is_given_up(shared: Bench, known: bool) -> None:
    _, version = shared.registry.reserve("shop", world.principal(shared.clock))
    record = RunRecord(run="r", key="k", as_of=1, started=1, reserving=not known, reserved=version if known else "")
    write_run(cache_folder(shared.settings, "shop"), record)
    shared.train(world.job)
    assert states(shared)[version] == "failed"
    assert "reserved" not in states(shared).values()


def test_a_champion_is_asked_once_and_another_one_anew(shared: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    weak = shared.train(replace(world.job, recipe=replace(world.recipe, rounds=1)))
    job, against = replace(world.job, seed=13), Against(champion=weak.ref)
    with monkeypatch.context() as patch:
        patch.setattr(steps_signed, "write_candidate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shared.train(job, against=against)
    trained = shared.train(job, against=against)
    assert cached(shared) == STAGES[:-2]
    report = verify_report(Path(trained.ref.path) / GATES_FILE, trust_root(shared.settings))
    assert report["champion"] == weak.ref.version
    assert [result["passed"] for result in report["results"] if result["gate"] == "champion"] == [True, True]
    assert [str(result) for result in trained.gates.results if result.gate == "champion"]

    assert shared.train(job, against=against).ref == trained.ref
    first = shared.train(job)  # nobody serves: the gates are held anew
    assert cached(shared) == STAGES[1:4]
    assert first.ref.version != trained.ref.version


def test_a_failed_gate_is_recorded_once(shared: Bench) -> None:
    before = list(states(shared).values()).count("failed")
    for _ in range(2):
        with pytest.raises(GateFailed, match=r"shop \d+: roc_auc"):
            shared.train(world.strict)
    assert list(states(shared).values()).count("failed") == before + 1


def test_a_version_is_rebuilt_bit_for_bit_and_what_differs_is_named(shared: Bench) -> None:
    trained = shared.train(world.job)
    folder = Path(trained.ref.path)
    statement = verify_version(
        folder, trust_root(shared.settings), name="shop", version=trained.ref.version, clock=shared.clock
    )
    definition = read_definition(folder, statement)

    def rebuilt(job: Any, **changes: Any) -> Any:
        signed = msgspec.structs.replace(statement, **changes)
        return reproduce(
            job, signed, definition, settings=shared.settings, reader=shared.reader,
            principal=world.principal(shared.clock), progress=shared.progress,
        )  # fmt: skip

    same = rebuilt(world.job)
    assert same.reproduced
    assert same.differing == ()
    assert {part.name for part in same.parts} >= {
        "code", "engine", "lock", "kernel", "definition", "dataset", "model.json", "model.onnx",
    }  # fmt: skip

    # XGBoost draws no numbers here, so another depth, not another seed, makes another model
    deeper = replace(world.job, recipe=replace(world.recipe, params={"max_depth": 4, "nthread": 1}))
    other = rebuilt(deeper)
    assert not other.reproduced
    assert other.differing == ("definition", "model.json", "model.onnx")
    assert {part.note for part in other.parts if part.name == "definition"} == {"recipe"}

    narrower = rebuilt(replace(world.job, train="30d"))
    assert {"dataset", "model.json"} <= set(narrower.differing)

    gone = rebuilt(world.job, snapshots=statement.snapshots | {"events.visits": 1})
    assert not gone.reproduced
    assert gone.differing == ("snapshot events.visits", "dataset", "model.json", "model.onnx")
    assert list(shared.settings.home.glob("training/reproduce-*")) == []

    changed = rebuilt(world.job, lock_sha256="a" * 64, kernel_sha256="b" * 64, git_sha="c" * 40)
    assert changed.reproduced
    assert changed.differing == ("code", "lock", "kernel")


@pytest.mark.parametrize(
    ("change", "as_of", "later", "found"),
    [
        ({}, None, 0, True),
        ({}, None, HOUR + 1, False),
        ({}, 5, HOUR + 1, True),
        ({}, 6, 0, False),
        ({"finished": True}, 5, 0, False),
        ({"key": "other"}, 5, 0, False),
    ],
)
def test_only_the_same_training_that_did_not_end_is_gone_on_with(
    tmp_path: Path, change: dict[str, Any], as_of: int | None, later: int, found: bool
) -> None:
    clock = ManualClock(10)
    record = RunRecord(**{"run": "r", "key": "k", "as_of": 5, "started": clock.now(), **change})
    write_run(tmp_path, record)
    clock.advance(later)
    assert (unfinished(tmp_path, "k", clock.now(), as_of) == record) is found


def test_a_torn_record_of_a_run_begins_a_new_one(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"run": "r", "ke')
    assert read_run(tmp_path) is None
    assert unfinished(tmp_path, "k", 0) is None
