from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from features.fraud import transactions
from features.simulators import fraud as simulator
from headway.cli.commands import quality
from headway.core.clock import ManualClock
from headway.core.errors import Conflict, Forbidden, NotFound
from headway.core.types import Principal
from headway.features.arrow import conform
from headway.features.quality.check import check
from headway.features.quality.quarantine import Quarantine, State
from tests.cli.test_main import failure, invoke

HEAD = ["BATCH", "SOURCE", "STATE", "ROWS", "SINCE", "BROKEN", "DECIDED", "BY"]


def as_person(monkeypatch: pytest.MonkeyPatch, *scopes: str, purpose: str = "fraud_prevention") -> None:
    who = Principal(sub="petra", kind="human", scopes=frozenset(scopes), purpose=purpose, expires=2**60)
    monkeypatch.setattr(quality, "person", lambda settings: who)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that holds one batch, whose transactions all have one id."""
    rows = conform(transactions, dict(simulator.tables(3, days=1))["transactions"].slice(0, 100))
    same = pa.array([7] * 100, pa.int64())
    rows = rows.set_column(rows.column_names.index("transaction_id"), "transaction_id", same)
    report = check(transactions, rows)
    assert report.rejected
    Quarantine(tmp_path / "quarantine", ManualClock(1_600_000_000_000_000)).hold("fraud-7", rows, report, "till")
    return tmp_path


def test_a_held_batch_is_listed_shown_and_dropped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_person(monkeypatch, "data:read", "quality:write")
    listed = invoke("quality", "list", home=home).stdout
    assert listed.split()[:8] == HEAD
    assert "fraud-7  transactions  held   100   2020-09-13T12:26:40Z  unique(transaction_id)" in listed
    shown = invoke("quality", "show", "fraud-7", home=home).stdout
    assert "fraud-7 of transactions: held, 100 rows from till" in shown
    assert "broken (reject)" in shown
    (case,) = json.loads(invoke("quality", "list", "--json", home=home).stdout)
    assert (case["batch"], case["state"], case["report"]["rows"]) == ("fraud-7", "held", 100)
    dropped = invoke("quality", "drop", "fraud-7", "--reason", "a test till", home=home).stdout
    assert dropped == "fraud-7 of transactions is dropped; corrected rows may come under its id\n"
    assert invoke("quality", "list", home=home).stdout == "no batch is held\n"
    assert "petra" in invoke("quality", "list", "--all", home=home).stdout
    assert "a test till" in invoke("quality", "show", "fraud-7", home=home).stdout
    lines = (home / "audit" / "cli.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["quality.drop"]


def test_values_are_shown_for_the_sources_purposes_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_person(monkeypatch, "data:read", purpose="marketing")
    found = json.loads(invoke("quality", "show", "fraud-7", "--json", home=home).stdout)
    assert {finding["example"] for finding in found["report"]["findings"]} == {"", "(not for this purpose)"}
    as_person(monkeypatch, "data:read")
    found = json.loads(invoke("quality", "show", "fraud-7", "--json", home=home).stdout)
    assert all(finding["example"].isdigit() for finding in found["report"]["findings"] if not finding["passed"])


def test_what_may_not_be_done_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_person(monkeypatch, "data:read")
    drop = ("quality", "drop", "fraud-7", "--reason", "r")
    assert isinstance(failure(invoke(*drop, home=home)), Forbidden)
    assert isinstance(failure(invoke("quality", "show", "fraud-8", home=home)), NotFound)
    as_person(monkeypatch, "quality:write")
    held = Quarantine(home / "quarantine", ManualClock(1))
    held.decide(held.find("fraud-7"), State.RELEASING, by="paul", reason="", record=lambda case: None)
    assert isinstance(failure(invoke(*drop, home=home)), Conflict)
