"""The handbook's windows and splits, against their plain definitions on a few rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import fraud_protocol as protocol
from headway.core.times import DAY


def _facts(n: int = 3_000) -> dict[str, Any]:
    rng = np.random.default_rng(8)
    at = np.sort(rng.integers(protocol.TRAIN_FROM - 50 * DAY, protocol.TEST_UNTIL, n) // 1_000_000 * 1_000_000)
    return {
        "transaction_id": np.arange(n),
        "customer_id": rng.integers(0, 20, n),
        "terminal_id": rng.integers(0, 20, n),
        "amount": rng.gamma(2, 20, n).round(2).astype(np.float32),
        "is_fraud": (rng.random(n) < 0.2).astype(np.int64),
        "event_time": at,
    }


def test_handbook_windows_include_the_current_transaction() -> None:
    facts = _facts()
    rows = np.arange(2_000, 3_000, 50)
    found = protocol.handbook_features(facts, rows)
    for position, row in enumerate(rows):
        t, customer, terminal = (facts[name][row] for name in ("event_time", "customer_id", "terminal_id"))
        at = facts["event_time"]
        for index, window in enumerate(protocol.WINDOWS):
            mine = (facts["customer_id"] == customer) & (at > t - window) & (at <= t)
            assert mine[row]
            assert found[position, 3 + 2 * index] == mine.sum()
            assert np.isclose(found[position, 4 + 2 * index], facts["amount"][mine].astype(float).mean())
            late = t - protocol.DELAY
            there = (facts["terminal_id"] == terminal) & (at > late - window) & (at <= late)
            assert found[position, 9 + 2 * index] == there.sum()
            risk = facts["is_fraud"][there].mean() if there.any() else 0.0
            assert np.isclose(found[position, 10 + 2 * index], risk)


def test_our_windows_never_see_the_current_transaction() -> None:
    facts = _facts()
    rows = np.arange(2_000, 3_000, 50)
    before = protocol.our_features(facts, rows)
    changed = dict(facts)
    changed["is_fraud"] = facts["is_fraud"].copy()
    changed["is_fraud"][rows] = 1 - changed["is_fraud"][rows]
    for row in rows:  # one at a time: a changed row may rightly be seen by a later one
        alone = {**facts, "is_fraud": np.where(np.arange(3_000) == row, 1 - facts["is_fraud"], facts["is_fraud"])}
        again = protocol.our_features(alone, np.array([row]))
        assert again.tobytes() == before[rows == row].tobytes()


def test_known_compromised_customers_leave_the_test_days() -> None:
    facts = _facts()
    chosen = protocol._test_rows(facts)
    assert chosen.any()
    for row in np.flatnonzero(chosen):
        midnight = facts["event_time"][row] // DAY * DAY
        earlier = (facts["event_time"] >= protocol.TRAIN_FROM) & (facts["event_time"] < midnight - protocol.DELAY)
        frauds = earlier & (facts["customer_id"] == facts["customer_id"][row]) & (facts["is_fraud"] == 1)
        assert not frauds.any()
