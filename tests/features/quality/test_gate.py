from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from headway.core.errors import Conflict, InvalidValue, Unavailable
from headway.features.ingest import ingest
from headway.features.quality.expectations import Severity, one_of
from headway.features.quality.gate import QUARANTINED, Gate, admit
from headway.features.quality.quarantine import State
from tests.features.quality.holding import BAD, GOOD, SENDER, SOURCE, Holding, sales


def test_a_failing_batch_reaches_nothing_and_its_error_tells_the_way_out(tmp_path: Path) -> None:
    holding = Holding(tmp_path)
    with pytest.raises(InvalidValue) as caught:
        holding.ingest(BAD, "shop-7#1")
    error = caught.value
    assert (error.field, error.code) == ("sales.price", QUARANTINED)
    assert error.message == "between(price, 0, 100): 2 of 4 rows (50 %) break it, worst is row 3"
    assert error.hint == "batch shop-7#1 is in quarantine: headway quality show shop-7#1, then release or drop it"
    assert holding.lake.appends == 0
    assert holding.profiles.days(SOURCE) == []
    assert holding.acts == [("data.ingest", "quarantined")]
    (case,) = holding.quarantine.cases()
    assert (case.batch, case.source, case.rows, case.sent_by) == ("shop-7#1", "sales", 4, "shop-7")
    assert holding.quarantine.rows(case).equals(BAD)
    assert holding.ingest(GOOD, "2").rows == 4, "the next batch passes"


def test_a_batch_within_tolerance_is_no_failure(tmp_path: Path) -> None:
    holding = Holding(tmp_path)
    report = holding.ingest(sales(*[1.0] * 9, -1.0), "a")
    assert (report.rows, report.warnings) == (10, ())
    assert holding.quarantine.cases(settled=True) == []


def test_a_warning_lets_the_batch_pass_and_is_reported(tmp_path: Path) -> None:
    holding = Holding(tmp_path)
    source = dataclasses.replace(SOURCE, expectations=(one_of("channel", ("web",), severity=Severity.WARN),))
    admission = admit(source, GOOD, "a", holding.gate, "shop-7")
    assert admission.warnings == ("one_of(channel, web): 2 of 4 rows (50 %) break it, worst is row 0",)


def test_without_a_quarantine_a_failing_batch_is_refused(tmp_path: Path) -> None:
    holding = Holding(tmp_path)
    with pytest.raises(InvalidValue, match="nothing was written") as caught:
        ingest(
            SOURCE, BAD, holding.lake, None, (), "b", holding.clock, principal=SENDER, audit=holding.audit
        )  # fmt: skip
    assert caught.value.code == "invalid_value"
    assert holding.lake.appends == 0
    assert holding.acts == [("data.ingest", "failed")]


def test_a_batch_id_stands_for_the_rows_that_are_held(tmp_path: Path) -> None:
    holding = Holding(tmp_path)
    for _ in range(2):
        with pytest.raises(InvalidValue, match="in quarantine"):
            holding.ingest(BAD, "b")
    assert len(holding.quarantine.cases()) == 1
    with pytest.raises(Conflict, match="batch b of sales is held with other rows"):
        holding.ingest(GOOD, "b")
    assert holding.lake.appends == 0
    case = holding.drop("b")
    with pytest.raises(InvalidValue, match="petra dropped these rows"):
        holding.ingest(BAD, "b")
    assert holding.ingest(GOOD, "b").snapshot_id == 1, "corrected rows may take the id of those dropped"
    assert holding.ingest(GOOD, "b").snapshot_id == 1
    worse = sales(-1.0, -2.0)
    with pytest.raises(InvalidValue, match="in quarantine"):
        holding.ingest(worse, "b")
    assert {known.state for known in holding.quarantine.of_batch("sales", "b")} == {State.DROPPED, State.HELD}
    assert holding.quarantine.find("b").rows_sha256 != case.rows_sha256, "the open one is meant"


def test_a_sender_that_repeats_released_rows_is_answered_and_adds_nothing(tmp_path: Path) -> None:
    holding = Holding(tmp_path)
    with pytest.raises(InvalidValue):
        holding.ingest(BAD, "b")
    case = holding.quarantine.find("b")
    holding.quarantine.decide(case, State.RELEASING, by="petra", reason="", record=lambda decided: None)
    with pytest.raises(Unavailable, match="being released by petra"):
        holding.ingest(BAD, "b")
    holding.release("b")
    appends = holding.lake.appends
    report = holding.ingest(BAD, "b")
    assert (report.rows, report.snapshot_id, report.views) == (4, 1, {})
    assert holding.lake.appends == appends, "the released rows are known from the release on, and stay so"
    with pytest.raises(Conflict, match="released with other rows"):
        holding.ingest(GOOD, "b")


def test_ingestion_goes_on_while_profiles_are_away(tmp_path: Path) -> None:
    holding = Holding(tmp_path)

    def away(*_: object, **__: object) -> int:
        raise Unavailable("the control store is away", retry_after_s=1.0)

    holding.control.put = away  # type: ignore[method-assign]  # a store that is away
    assert holding.ingest(GOOD, "a").rows == 4
    assert holding.ingest(GOOD, "c", Gate(quarantine=holding.quarantine)).rows == 4, "no profiles are wanted"
