"""A training set as a notebook gets it: a real lake, a project of its own on disk, a token that was stored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headway.core.clock import ManualClock, SystemClock
from headway.core.errors import Forbidden, InvalidValue, NotFound, ServiceFailed, Unauthenticated
from headway.core.settings import Settings
from headway.core.times import DAY, HOUR
from headway.core.types import Principal
from headway.features import training_set
from headway.features.historical import offline_features
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.training_sets import TrainingSet, open_training_set
from headway.governance.audit_event import MemoryAudit
from headway.governance.issuing import development_issuer
from headway.governance.login import store_token
from tests.training import world

PROJECT = """
from headway.features.history import History
from tests.training.world import returns, shop_v1, visits

service = shop_v1
history = History(use_case="shop", sources=(visits, returns), load=lambda seed: {}, live_from="2018-01-01",
                  live_until="2018-02-01", requests=visits, outcomes=returns, label="returned")
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(world.AS_OF)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for folder in ("features", "training", "serve_apps/shop", "monitoring"):
        (root / folder).mkdir(parents=True)
        (root / folder / "__init__.py").write_text("")
    (root / "features" / "shop.py").write_text(PROJECT)
    (root / "serve_apps" / "shop" / "contract.yaml").write_text(world.CONTRACT)
    return root


class Notebook:
    """What `training_set` finds in a process, over a lake of the test's own."""

    def __init__(self, home: Path, project: Path, clock: ManualClock) -> None:
        self.settings = Settings(home=home, project=project)
        self.clock, self.audit = clock, MemoryAudit(clock)
        self.location = Location.of(self.settings)
        world.fill_lake(self.location, clock)
        self.reader = LakeReader(self.location, self.audit, clock)
        self.who = world.principal(clock, "data:read")

    def open(self, use_case: str = "shop", *, who: Principal | None = None, **given: Any) -> TrainingSet:
        options: dict[str, Any] = {"purpose": world.PURPOSE, **given}
        return open_training_set(
            use_case, settings=self.settings, principal=who or self.who, reader=self.reader, audit=self.audit,
            clock=self.clock, **options,
        )  # fmt: skip


@pytest.fixture
def notebook(tmp_path: Path, project: Path, clock: ManualClock) -> Iterator[Notebook]:
    yield Notebook(tmp_path / "home", project, clock)


def expected(notebook: Notebook, spine: pa.Table) -> pa.Table:
    who = notebook.who
    return offline_features(spine, world.shop_v1, notebook.reader, who, who.purpose)


@pytest.mark.ray
def test_every_form_holds_the_rows_that_training_would_see(notebook: Notebook, ray_session: str) -> None:
    since, until = world.START + 20 * DAY, world.START + 30 * DAY
    rows = notebook.open(since="2018-01-21", until=datetime(2018, 1, 31, tzinfo=UTC))
    assert (rows.since, rows.until) == (since, until)
    made = world.tables()["returns"]
    times = made["event_time"].to_numpy()
    inside = made.filter(pa.array((times >= since) & (times < until)))
    table = rows.to_arrow()
    assert table["visit_id"].to_pylist() == inside["visit_id"].to_pylist()
    assert len(rows) == table.num_rows == inside.num_rows
    whole = expected(notebook, inside)
    for name in (*world.shop_v1.features, "returned", "customer_id"):
        np.testing.assert_array_equal(table[name].to_numpy(), whole[name].to_numpy(), err_msg=name)
    frame = rows.to_pandas()
    assert str(frame["event_time"].dtype) == "datetime64[us, UTC]"
    assert frame["amount_log"].to_numpy().tobytes() == table["amount_log"].to_numpy().tobytes()
    assert rows.dataset().count() == len(rows)
    assert rows.dataset() is rows.dataset(), "joined once"


@pytest.mark.ray
def test_the_same_pins_give_the_same_rows_after_more_came(
    notebook: Notebook, ray_session: str, clock: ManualClock
) -> None:
    first = notebook.open(since="2018-02-01", as_of=world.AS_OF)
    more = {name: table.slice(0, 50) for name, table in world.tables(400).items()}
    committer = Committer(notebook.location, clock)
    for source in (world.visits, world.returns):
        table = more[source.name]
        shifted = table.set_column(0, "visit_id", pc.add(table["visit_id"], 1_000_000))
        committer.append(source, shifted, "late")
    again = notebook.open(since="2018-02-01", as_of=first.as_of, snapshots=first.snapshots)
    assert again.describe() == first.describe()
    assert again.to_pandas().equals(first.to_pandas())
    fresh = notebook.open(as_of=world.AS_OF)
    assert dict(fresh.snapshots) != dict(first.snapshots)


def test_it_says_what_it_is_and_leaves_a_trace(notebook: Notebook) -> None:
    rows = notebook.open(since="2018-01-05", until="2018-01-06")
    text = str(rows)
    for table, snapshot in rows.snapshots.items():
        assert f"{table}@{snapshot}" in text
    assert set(rows.snapshots) == {"events.returns", "events.visits"}
    assert f"training set of shop: {len(rows):,} rows, {len(world.shop_v1.features)} features of shop_v1" in text
    assert "read by tester for model_training" in text
    assert rows.describe()["sha256"] == world.shop_v1.sha256()
    read, made = notebook.audit.events
    assert (read.action, read.resource) == ("data.read", f"events.returns@{rows.snapshots['events.returns']}")
    assert (made.action, made.resource, made.outcome) == ("features.training_set", "shop_v1", f"{len(rows)} rows")
    assert made.refs == (world.shop_v1.sha256(),)


def test_no_label_is_seen_before_it_was_known(notebook: Notebook) -> None:
    rows = notebook.open(as_of=world.START + 30 * DAY)
    assert rows.spine["event_time"].to_numpy().max() <= world.START + 23 * DAY
    assert len(notebook.open(as_of=world.START + 30 * DAY + HOUR)) >= len(rows)


def test_who_may_not_read_is_told_the_way(notebook: Notebook, clock: ManualClock) -> None:
    for who, purpose, message in (
        (
            replace(notebook.who, kind="human", purpose="platform_operations"),
            world.PURPOSE,
            "login --purpose model_training",
        ),
        (replace(notebook.who, purpose="marketing"), "marketing", "may not be read for 'marketing'.*model_training"),
        (replace(notebook.who, scopes=frozenset({"train:shop"})), world.PURPOSE, "data:read"),
    ):
        with pytest.raises(Forbidden) as caught:
            notebook.open(who=who, purpose=purpose)
        assert re.search(message, str(caught.value)), caught.value
    with pytest.raises(Unauthenticated, match="headway login"):
        notebook.open(who=replace(notebook.who, expires=clock.now()))
    assert {event.outcome for event in notebook.audit.events} == {"denied"}


def test_wrong_names_ranges_and_times_are_named(notebook: Notebook) -> None:
    with pytest.raises(NotFound, match="unknown use case 'shpo'; did you mean 'shop'"):
        notebook.open("shpo")
    with pytest.raises(InvalidValue, match=r"since: 2018-02-01T00:00:00Z is not before"):
        notebook.open(since="2018-02-01", until="2018-02-01")
    with pytest.raises(InvalidValue, match="until: 'soon' is not a time"):
        notebook.open(until="soon")
    with pytest.raises(InvalidValue, match="as_of: a time outside the years 1 to 9999"):
        notebook.open(as_of=2**62)
    with pytest.raises(InvalidValue, match="since: a time outside"):
        notebook.open(since=-(2**62))
    with pytest.raises(InvalidValue, match="until: a time outside"):
        notebook.open(until=2**62)
    with pytest.raises(InvalidValue, match="since: no labelled rows of returns in"):
        notebook.open(since="2017-01-01", until="2017-01-02")
    with pytest.raises(NotFound, match="snapshot"):
        notebook.open(snapshots={"events.returns": 7})
    with pytest.raises(NotFound, match=r"table.*'events\.retruns'; did you mean 'events\.returns'"):
        notebook.open(snapshots={"events.retruns": 7})


def test_the_public_function_acts_as_whoever_is_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    home, clock = tmp_path / "home", SystemClock()
    monkeypatch.setenv("HEADWAY_HOME", str(home))
    monkeypatch.setenv("HEADWAY_PROJECT", str(project))
    with pytest.raises(ServiceFailed, match="headway up"):
        training_set("shop", purpose=world.PURPOSE)
    for name in ("REDIS_FEATURES_URL", "REDIS_CONTROL_URL", "MLFLOW_URI"):
        monkeypatch.setenv(f"HEADWAY_{name}", "redis://127.0.0.1:1/0")
    issuer = development_issuer(home, clock)
    with pytest.raises(Unauthenticated, match=r"nobody is logged in.*headway login"):
        training_set("shop", purpose=world.PURPOSE)
    world.fill_lake(Location.of(Settings(home=home)), clock)
    store_token(home, issuer.issue("ana", "human", ["data:read"], "platform_operations"))
    with pytest.raises(Forbidden, match="ana acts for 'platform_operations'") as caught:
        training_set("shop", purpose=world.PURPOSE)
    assert caught.value.hint == "headway login --purpose model_training"
    store_token(home, issuer.issue("ana", "human", ["data:read"], world.PURPOSE))
    rows = training_set("shop", purpose=world.PURPOSE, since="2018-01-05", until="2018-01-06")
    assert rows.principal.sub == "ana"
    events = [json.loads(line) for line in (home / "audit" / "notebook.jsonl").read_text().splitlines()]
    assert [(event["action"], event["actor"], event["outcome"]) for event in events] == [
        ("data.read", "ana", "denied"),
        ("data.read", "ana", "done"),
        ("features.training_set", "ana", f"{len(rows)} rows"),
    ]
