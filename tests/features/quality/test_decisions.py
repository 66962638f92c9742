from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headway.core.errors import Conflict, Forbidden, InvalidValue, Unavailable
from headway.core.times import SECOND
from headway.features.quality.quarantine import State
from tests.features.quality.holding import BAD, GOOD, NOW, PERSON, SENDER, SOURCE, Holding, killed_everywhere


def held(folder: Path) -> Holding:
    holding = Holding(folder)
    with pytest.raises(InvalidValue):
        holding.ingest(BAD, "b")
    return holding


def test_released_rows_are_ingested_once_under_their_batch_id_and_known_from_then_on(tmp_path: Path) -> None:
    holding = held(tmp_path)
    holding.clock.advance(SECOND)
    case = holding.release("b")
    assert (case.state, case.decided_by, case.snapshot_id) == (State.RELEASED, "petra", 1)
    assert holding.lake.ids == [0, 1, 2, 3]
    rows = holding.lake.batches["b"]
    assert rows["known_time"].to_pylist() == [NOW + SECOND] * 4, "nobody could have used them before"
    assert rows.drop_columns("known_time").equals(BAD.drop_columns("known_time"))
    assert holding.acts == [("data.ingest", "quarantined"), ("quality.release", "done"), ("data.ingest", "done")]
    assert holding.audit.events[1].refs == (case.rows_sha256,)
    assert holding.release("b") == case, "released is released"
    assert holding.quarantine.rows(case).num_rows == 0, "the lake has them now"
    assert sum(day.rows for day in holding.profiles.days(SOURCE)) == 4


def test_a_replayed_history_keeps_its_known_times(tmp_path: Path) -> None:
    holding = held(tmp_path)
    holding.clock.advance(SECOND)
    holding.release("b", keep_known_time=True)
    assert holding.lake.batches["b"].equals(BAD)


def test_dropped_rows_are_not_ingested_and_stay_as_evidence(tmp_path: Path) -> None:
    holding = held(tmp_path)
    case = holding.drop("b")
    assert (case.state, case.reason, holding.lake.ids) == (State.DROPPED, "a test till", [])
    assert holding.quarantine.rows(case).equals(BAD)
    assert holding.quarantine.cases() == []
    assert holding.quarantine.cases(settled=True) == [case]
    assert holding.acts[-1] == ("quality.drop", "done")
    with pytest.raises(Conflict, match="batch b is dropped: petra was first"):
        holding.release("b")


def test_what_is_released_cannot_be_dropped(tmp_path: Path) -> None:
    holding = held(tmp_path)
    holding.release("b")
    with pytest.raises(Conflict, match="its rows are in the lake"):
        holding.drop("b")


def test_a_decision_takes_the_scope(tmp_path: Path) -> None:
    holding = held(tmp_path)
    for decide in (holding.release, holding.drop):
        with pytest.raises(Forbidden, match="quality:write"):
            decide("b", principal=SENDER)
    assert [case.state for case in holding.quarantine.cases()] == [State.HELD]


def test_a_decision_that_cannot_be_audited_is_none(tmp_path: Path) -> None:
    holding = held(tmp_path)

    def refuse(**_: object) -> None:
        raise Unavailable("the audit log is full", retry_after_s=1.0)

    holding.audit.append = refuse  # type: ignore[method-assign, assignment]  # an audit log that fails
    for decide in (holding.release, holding.drop):
        with pytest.raises(Unavailable):
            decide("b")
    assert [case.state for case in holding.quarantine.cases()] == [State.HELD]
    assert holding.lake.ids == []


def test_a_release_killed_anywhere_is_completed_by_repeating_it(tmp_path: Path) -> None:
    kills = 0
    for holding, done in killed_everywhere(tmp_path, held, lambda holding: holding.release("b")):
        open_ones = holding.quarantine.cases()
        assert done or len(open_ones) == 1 or holding.quarantine.find("b").state == State.RELEASED
        holding.clock.advance(SECOND)
        case = holding.release("b")
        assert case.state == State.RELEASED
        assert holding.lake.ids == [0, 1, 2, 3]
        assert len(np.unique(holding.lake.batches["b"]["known_time"].to_numpy())) == 1, "one release, one moment"
        assert ("quality.release", "done") in holding.acts
        assert holding.quarantine.cases() == []
        assert sum(day.rows for day in holding.profiles.days(SOURCE)) == 4, "counted once"
        assert holding.ingest(BAD, "b").snapshot_id == 1, "its sender may repeat it"
        assert holding.lake.ids == [0, 1, 2, 3]
        kills += not done
    assert kills >= 12


def test_after_a_killed_release_a_drop_wins_only_where_nothing_was_ingested(tmp_path: Path) -> None:
    outcomes = set()
    for holding, _ in killed_everywhere(tmp_path, held, lambda holding: holding.release("b")):
        try:
            outcomes.add(str(holding.drop("b").state))
            assert holding.lake.ids == []
        except Conflict:
            outcomes.add(str(holding.release("b").state))
            assert holding.lake.ids == [0, 1, 2, 3]
    assert outcomes == {"dropped", "released"}


def test_a_batch_killed_while_it_is_held_is_held_by_repeating_it(tmp_path: Path) -> None:
    def refused(holding: Holding) -> None:
        with pytest.raises(InvalidValue):
            holding.ingest(BAD, "b")

    kills = 0
    for holding, done in killed_everywhere(tmp_path, Holding, refused):
        refused(holding)
        (case,) = holding.quarantine.cases()
        assert holding.quarantine.rows(case).equals(BAD)
        assert holding.lake.ids == []
        assert ("data.ingest", "quarantined") in holding.acts
        kills += not done
    assert kills >= 4


def test_a_killed_drop_is_completed_by_repeating_it(tmp_path: Path) -> None:
    kills = 0
    for number, (holding, done) in enumerate(killed_everywhere(tmp_path, held, lambda holding: holding.drop("b"))):
        case = holding.drop("b")
        assert holding.quarantine.rows(case).equals(BAD)
        assert [known.state for known in holding.quarantine.cases(settled=True)] == [State.DROPPED]
        assert len(list((tmp_path / str(number)).glob("quarantine/*/*.parquet"))) == 1
        assert holding.ingest(GOOD, "b").rows == 4
        kills += not done
    assert kills >= 4


def test_two_people_decide_once(tmp_path: Path) -> None:
    holding = held(tmp_path)
    seen = holding.quarantine.find("b")
    holding.drop("b")
    with pytest.raises(Conflict, match="petra was first"):
        holding.quarantine.decide(seen, State.RELEASING, by="paul", reason="", record=lambda case: None)
    assert PERSON.sub == holding.quarantine.find("b").decided_by
