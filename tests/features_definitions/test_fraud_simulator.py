from __future__ import annotations

import numpy as np
import pytest

from features.fraud import history
from features.simulators import fraud as simulator
from headway.core.times import DAY
from headway.features.history import History


@pytest.fixture(scope="module")
def plain() -> simulator.Transactions:
    return simulator.simulate(3)


@pytest.mark.parametrize(
    ("scenario", "published", "tolerance"),
    # Tolerances: 4 standard deviations over draws, dominated by which terminals and customers are compromised.
    [(1, 978, 0.30), (2, 9_099, 0.10), (3, 4_604, 0.15)],
)
def test_frauds_of_each_scenario_are_as_many_as_published(
    plain: simulator.Transactions, scenario: int, published: int, tolerance: float
) -> None:
    assert int((plain.scenario == scenario).sum()) == pytest.approx(published, rel=tolerance)


def test_there_are_as_many_transactions_as_published(plain: simulator.Transactions) -> None:
    assert plain.second.size == pytest.approx(1_754_155, rel=0.04)
    assert float((plain.scenario > 0).mean()) == pytest.approx(0.00837, rel=0.1)


def test_genuine_amounts_follow_the_published_law(plain: simulator.Transactions) -> None:
    amount = plain.amount[plain.scenario != 3]
    # The customers' mean is 52.5; N(m, m/2) redrawn uniform below zero adds a little: E = m (1 + 0.0312).
    assert float(amount.mean()) == pytest.approx(52.5 * 1.031, rel=0.05)
    assert np.array_equal(amount, amount.round(2))
    assert float(amount.min()) >= 0


def test_rows_are_in_time_order_inside_their_days(plain: simulator.Transactions) -> None:
    assert (np.diff(plain.second) >= 0).all()
    clock = plain.second % 86_400
    assert clock.min() > 0
    assert int(plain.day.max()) == simulator.DAYS - 1


def test_scenario_one_is_exactly_what_exceeds_220(plain: simulator.Transactions) -> None:
    genuine = plain.amount[plain.scenario == 0]
    assert float(genuine.max()) <= 220
    assert float(plain.amount[plain.scenario == 1].min()) > 220


def test_a_compromised_terminal_has_only_frauds_while_it_lasts(plain: simulator.Transactions) -> None:
    terminal = int(plain.terminal[np.flatnonzero(plain.scenario == 2)[1_000]])
    rows = plain.terminal == terminal
    day = plain.day[rows & (plain.scenario == 2)]
    inside = rows & (plain.day >= day.min()) & (plain.day <= min(int(day.max()), int(day.min()) + 27))
    assert (plain.scenario[inside] > 0).all()


def test_a_seed_is_a_world() -> None:
    one, same, other = (simulator.simulate(seed, days=20) for seed in (5, 5, 6))
    assert np.array_equal(one.amount, same.amount)
    assert np.array_equal(one.terminal, same.terminal)
    assert one.second.size != other.second.size or not np.array_equal(one.amount, other.amount)


def test_customers_pay_only_within_their_radius() -> None:
    rng = np.random.default_rng(0)
    world = simulator._world(rng)
    again = np.random.default_rng(0)
    place = again.uniform(0, 100, (simulator.CUSTOMERS, 2))
    again.uniform(5, 100, simulator.CUSTOMERS)
    again.uniform(0, 4, simulator.CUSTOMERS)
    terminals = again.uniform(0, 100, (simulator.TERMINALS, 2))
    for customer in (0, 499, 500, 4_999):
        near = world.nearby[world.first[customer] : world.first[customer + 1]]
        distance = np.hypot(*(terminals - place[customer]).T)
        assert set(near.tolist()) == set(np.flatnonzero(distance < simulator.RADIUS).tolist())


def test_the_drifted_world_is_the_plain_one_until_it_changes() -> None:
    since = simulator.START + 10 * DAY
    plain = simulator.tables(4, days=20)["transactions"]
    drifted = simulator.tables(4, days=20, drift_from=since)["transactions"]
    before = int(np.searchsorted(plain["event_time"].to_numpy(), since))
    assert before > 50_000
    assert drifted.slice(0, before).equals(plain.slice(0, before))
    after, changed = plain.slice(before)["amount"].to_numpy(), drifted.slice(before)["amount"].to_numpy()
    grid = np.linspace(0, 300, 601)
    distance = np.abs(np.mean(after[:, None] <= grid, axis=0) - np.mean(changed[:, None] <= grid, axis=0)).max()
    assert distance > 0.12  # the contract's smallest effect is 0.1


def test_the_new_wave_is_fraud_and_small() -> None:
    rows = simulator.simulate(4, days=20, drift_from=simulator.START + 10 * DAY)
    wave = rows.scenario == 4
    assert int(wave.sum()) > 1_000
    assert int(rows.day[wave].min()) >= 10
    assert float(rows.amount[wave].max()) <= 5
    assert int((rows.second[wave] % 86_400).max()) < 6 * 3_600


def test_the_drift_lies_in_the_live_range() -> None:
    from headway.core.times import parse_time

    assert isinstance(history, History)
    assert parse_time(history.live_from) < simulator.DRIFT_FROM < parse_time(history.live_until)
