from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.errors import CorruptState, InvalidValue, NotFound, Unavailable
from headway.core.times import SECOND
from headway.features.quality.check import QualityReport, check
from headway.features.quality.quarantine import State
from tests.features.quality.holding import BAD, SOURCE, Holding, sales


def bad(number: int) -> QualityReport:
    return check(SOURCE, sales(-1.0, -2.0, first=number))


def test_a_batch_is_found_by_its_id_and_by_its_source_where_two_share_it(tmp_path: Path) -> None:
    quarantine = Holding(tmp_path).quarantine
    report = check(SOURCE, BAD)
    with pytest.raises(NotFound, match="unknown batch in quarantine 'b'; known: none"):
        quarantine.find("b")
    quarantine.hold("b", BAD, report, "s")
    other = QualityReport(source="returns", rows=4, findings=report.findings)
    quarantine.hold("b", BAD, other, "s")
    with pytest.raises(InvalidValue, match="is a batch of returns and of sales"):
        quarantine.find("b")
    assert quarantine.find("b", "returns").report == other
    with pytest.raises(NotFound, match="did you mean 'b'"):
        quarantine.find("B")
    assert [case.source for case in quarantine.cases("sales")] == ["sales"]


def test_any_text_is_a_batch_id(tmp_path: Path) -> None:
    quarantine = Holding(tmp_path).quarantine
    for batch in ("../../etc/passwd", "a/b", "x" * 900, "é*[]", " "):
        quarantine.hold(batch, BAD, check(SOURCE, BAD), "s")
        assert quarantine.find(batch).batch == batch
    assert len(list((tmp_path / "quarantine" / "held").iterdir())) == 5


def test_a_full_quarantine_pushes_back(tmp_path: Path) -> None:
    holding = Holding(tmp_path, max_batches=2)
    for batch in ("a", "b"):
        with pytest.raises(InvalidValue):
            holding.ingest(BAD, batch)
    with pytest.raises(Unavailable, match=r"full .* neither ingested nor kept") as caught:
        holding.ingest(BAD, "c")
    assert caught.value.retry_after_s > 0
    assert holding.lake.appends == 0
    with pytest.raises(InvalidValue, match="in quarantine"):
        holding.ingest(BAD, "a")
    holding.drop("a")
    with pytest.raises(InvalidValue, match="in quarantine"):
        holding.ingest(BAD, "c")


def test_dropped_rows_give_way_oldest_first_and_their_reports_stay(tmp_path: Path) -> None:
    one = Holding(tmp_path / "one")
    case = one.quarantine.hold("a", BAD, check(SOURCE, BAD), "s")
    size = next((tmp_path / "one/quarantine/held").iterdir()).stat().st_size
    rows = sales(*[-1.0 - i / 7 for i in range(20_000)])
    big = Holding(tmp_path / "two", max_bytes=500_000).quarantine
    report = check(SOURCE, rows)
    assert case.rows == 4
    assert size < 10_000
    names = [f"d{number}" for number in range(8)]
    for name in names:
        case = big.hold(name, rows, report, "s")
        big.decide(case, State.DROPPED, by="p", reason="r", record=lambda decided: None)
    kept = [big.rows(known).num_rows for known in big.cases(settled=True)]
    assert [known.batch for known in big.cases(settled=True)] == names
    assert all(known.report == report for known in big.cases(settled=True))
    assert sorted(kept) == kept, "the oldest went first"
    assert {0, 20_000} == set(kept)
    used = sum(path.stat().st_size for path in (tmp_path / "two").glob("quarantine/*/*"))
    assert used <= 500_000 + 8 * size


def test_bytes_that_are_held_never_give_way(tmp_path: Path) -> None:
    quarantine = Holding(tmp_path, max_bytes=10_000).quarantine
    rows = sales(*[-1.0 - i / 7 for i in range(20_000)])
    with pytest.raises(Unavailable, match="quarantine is full"):
        quarantine.hold("a", rows, check(SOURCE, rows), "s")
    assert quarantine.cases() == []
    assert list(tmp_path.glob("quarantine/*/*")) == []


def test_a_file_that_is_no_case_is_named_and_left(tmp_path: Path) -> None:
    quarantine = Holding(tmp_path).quarantine
    case = quarantine.hold("a", BAD, check(SOURCE, BAD), "s")
    (path,) = (tmp_path / "quarantine" / "held").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptState, match="not a quarantined batch"):
        quarantine.cases()
    with pytest.raises(CorruptState, match="the batch a cannot be read"):
        quarantine.rows(case)
    assert path.exists()


def test_cases_are_listed_oldest_first(tmp_path: Path) -> None:
    holding = Holding(tmp_path)
    for number in (3, 1, 2):
        rows = sales(-1.0, -2.0, first=number)
        holding.quarantine.hold(f"b{number}", rows, bad(number), "s")
        holding.clock.advance(SECOND)
    assert [case.batch for case in holding.quarantine.cases()] == ["b3", "b1", "b2"]
