"""Every row that a replica counted is compared, set aside with its reason, or waiting; none twice, none lost."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.counts import CountsDelta
from headway.core.times import DAY, HOUR
from headway.monitoring.alarms import Alarm
from headway.monitoring.state import MonitorState
from headway.monitoring.window import fold, follow
from tests.monitoring.support import BUDGET, MONITOR, START, delta, reference


def run(deltas: list[CountsDelta], state: MonitorState | None = None) -> tuple[MonitorState, list[Alarm]]:
    known = reference()
    state = follow(state or MonitorState(), known)
    alarms = []
    for item in deltas:
        folded = fold(state, item, reference=known, monitor=MONITOR, budget=BUDGET)
        state = folded.state
        if folded.alarm:
            alarms.append(folded.alarm)
    return state, alarms


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 400), st.sampled_from(["1", "2"]), st.sampled_from(["a", "b"]), st.sampled_from(["r1", "r2"])
        ),
        max_size=15,
    ),
)
def test_rows_are_conserved(items: list[tuple[int, str, str, str]]) -> None:
    rng = np.random.default_rng(1)
    known = {"r1": 0, "r2": 0}
    deltas = []
    for rows, version, profile, replica in items:
        deltas.append(delta(known[replica], rows, rng=rng, version=version, replica=replica, profile=profile * 64))
        known[replica] += 1
    state, _ = run([item for item in deltas for _ in range(2)])
    accounts = state.accounts
    assert accounts.compared + sum(accounts.set_aside.values()) + state.window.rows == sum(d.rows for d in deltas)
    assert accounts.duplicate_deltas == len(deltas)
    assert accounts.lost_deltas == 0
    assert set(accounts.set_aside) <= {"other_version", "other_profile"}


def test_counts_over_other_edges_or_of_another_version_are_set_aside_and_counted() -> None:
    rng = np.random.default_rng(2)
    state, _ = run(
        [
            delta(0, 10, rng=rng),
            delta(1, 20, rng=rng, version="7"),
            delta(2, 30, rng=rng, profile="c" * 64),
            msgspec.structs.replace(delta(3, 40, rng=rng), counts=b"\0" * 16),
            msgspec.structs.replace(delta(4, 50, rng=rng), rows=49),
        ]
    )
    assert state.window.rows == 10
    assert state.accounts.set_aside == {"other_version": 20, "other_profile": 30, "malformed": 89}


def test_a_gap_in_a_replicas_sequence_is_counted_as_lost() -> None:
    rng = np.random.default_rng(3)
    state, _ = run([delta(0, 5, rng=rng), delta(4, 5, rng=rng), delta(2, 5, rng=rng, replica="r2")])
    assert state.accounts.lost_deltas == 3 + 2
    assert state.window.rows == 15


def test_windows_close_by_rows_and_are_dated_by_decision_time() -> None:
    rng = np.random.default_rng(4)
    days = [delta(i, 500, rng=rng, first_time=START + i * DAY) for i in range(5)]
    state, alarms = run(days)
    assert alarms == []
    assert [(v.first_time, v.last_time, v.rows) for v in state.verdicts] == [
        (START, START + DAY + HOUR, 1_000),
        (START + 2 * DAY, START + 3 * DAY + HOUR, 1_000),
    ]
    assert state.verdicts[0].alpha == pytest.approx(25 / 720)
    assert state.verdicts[1].alpha == 0.05  # 48 hours would be 0.067: a window has to stay convincing
    assert state.window.rows == 500
    assert state.budget_used == pytest.approx(sum(v.alpha for v in state.verdicts))


def test_a_drifted_window_alarms_with_its_features() -> None:
    rng = np.random.default_rng(5)
    _, alarms = run([delta(0, 600, rng=rng), delta(1, 600, rng=rng, shift=0.8)])
    assert [alarm.features[0] for alarm in alarms] == ["amount"]
    assert alarms[0].version == "1"
    assert alarms[0].rows == 1_200


def test_a_new_champion_sets_the_open_window_aside_once() -> None:
    rng = np.random.default_rng(6)
    state, _ = run([delta(0, 300, rng=rng)])
    turned = follow(state, reference("2"))
    assert turned.window.rows == 0
    assert turned.accounts.set_aside == {"superseded": 300}
    assert follow(turned, reference("2")) == turned
