"""Features of card transactions: what a card did lately, and how risky a terminal has proved to be.

Terminal risk ends seven days before the decision, because that is how long an investigation takes: a younger label
would not exist yet when the transaction is decided.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from features.simulators import fraud as simulator
from headway.core.times import DAY, HOUR
from headway.core.types import Columns
from headway.features.aggregates import count, largest, mean, total
from headway.features.definitions import Entity, EventSource, FeatureService, OutcomesOf, WindowView
from headway.features.history import History
from headway.features.quality.expectations import between, known_within, not_null, one_of, unique
from headway.features.transformations import transformation

OWNER = "payments-risk@example.com"
PURPOSES = ("fraud_prevention", "model_training", "monitoring")
LABEL_DELAY = "7d"
PAYMENT = (
    unique("transaction_id"),
    not_null("customer_id"),
    not_null("terminal_id"),
    not_null("amount"),
    between("amount", 0, 10_000),
)
TAGS = {"customer_id": ("pii",), "amount": ("financial",)}

customer = Entity(name="customer", key="customer_id", description="Card holder; one card each.")
terminal = Entity(name="terminal", key="terminal_id", description="Point of sale.")

transactions = EventSource(
    name="transactions",
    columns={"transaction_id": "int64", "customer_id": "int64", "terminal_id": "int64", "amount": "float32"},
    id="transaction_id",
    bucket_by="customer_id",
    purposes=PURPOSES,
    expectations=(*PAYMENT, known_within("10m", tolerance=0.01)),
    owner=OWNER,
    tags=TAGS,
    description="Card transactions; known one second after they happen, so a decision never sees itself.",
)

fraud_outcomes = EventSource(
    name="fraud_outcomes",
    columns={
        "transaction_id": "int64",
        "customer_id": "int64",
        "terminal_id": "int64",
        "amount": "float32",
        "is_fraud": "int64",
        "scenario": "int64",
    },
    id="transaction_id",
    bucket_by="terminal_id",
    purposes=PURPOSES,
    outcomes=OutcomesOf(use_case="fraud", label="is_fraud"),
    expectations=(*PAYMENT, not_null("is_fraud"), one_of("is_fraud", (0, 1)), known_within("30d")),
    owner=OWNER,
    tags=TAGS,
    description=(
        "What became of each transaction, from a file or posted; known seven days later. No feature reads the "
        "simulator's `scenario`, which a posted outcome does not have."
    ),
)

card_activity = WindowView(
    name="card_activity",
    entity=customer,
    source=transactions,
    aggregates=(
        *count("1d", "7d", "30d"),
        *mean("amount", "1d", "7d", "30d", scale=100),
        *largest("amount", "7d", "30d", scale=100),
    ),
    max_events=512,
    owner=OWNER,
    description="How often and how much a card paid lately.",
)

terminal_risk = WindowView(
    name="terminal_risk",
    entity=terminal,
    source=fraud_outcomes,
    aggregates=(
        *count("1d", "7d", "30d", offset=LABEL_DELAY),
        *mean("is_fraud", "1d", "7d", "30d", offset=LABEL_DELAY),
        *total("is_fraud", "7d", "14d", "21d", "28d", offset=LABEL_DELAY),
    ),
    max_events=512,
    owner=OWNER,
    description="How many of a terminal's transactions proved fraudulent, as known seven days later.",
)


@transformation(inputs=("event_time",), outputs=("is_weekend", "is_night"))
def calendar(columns: Columns) -> Columns:
    """Weekend (Saturday, Sunday) and night (before six), in UTC."""
    at = columns["event_time"].astype(np.int64)
    weekday = (at // DAY + 3) % 7  # 1 January 1970 was a Thursday
    return {
        "is_weekend": (weekday >= 5).astype(np.float32),
        "is_night": (at % DAY < 6 * HOUR).astype(np.float32),
    }


@transformation(
    inputs=(
        "amount",
        "card_activity__amount_mean_7d",
        "card_activity__amount_max_7d",
        "card_activity__amount_mean_30d",
        "card_activity__amount_max_30d",
    ),
    outputs=("amount_to_mean_30d", "amount_to_max_30d", "mean_7d_to_mean_30d", "max_7d_to_mean_30d"),
)
def amount_ratios(columns: Columns) -> Columns:
    """How unusual this amount, and the last week's, are for this card; missing without history.

    Single divisions only: they round alike on every processor and for every batch size.
    """
    ratios = {
        "amount_to_mean_30d": ("amount", "card_activity__amount_mean_30d"),
        "amount_to_max_30d": ("amount", "card_activity__amount_max_30d"),
        "mean_7d_to_mean_30d": ("card_activity__amount_mean_7d", "card_activity__amount_mean_30d"),
        "max_7d_to_mean_30d": ("card_activity__amount_max_7d", "card_activity__amount_mean_30d"),
    }
    above = np.array([columns[name] for name, _ in ratios.values()], np.float32)
    usual = np.array([columns[name] for _, name in ratios.values()], np.float32)
    ratio = np.full_like(usual, np.nan)
    np.divide(above, usual, out=ratio, where=usual > 0)
    return dict(zip(ratios, ratio, strict=True))


fraud_v1 = FeatureService(
    name="fraud_v1",
    views=(card_activity, terminal_risk),
    request={"amount": "float32"},
    transformations=(calendar, amount_ratios),
    event_id="transaction_id",
    description="Card transaction decisions.",
    tags={"amount": ("financial",)},
)


def load(seed: int) -> Mapping[str, pa.Table]:
    """Simulate 183 days."""
    return simulator.tables(seed)


def load_drifted(seed: int) -> Mapping[str, pa.Table]:
    """Simulate the same 183 days with a world that changes during the live range."""
    return simulator.tables(seed, drift_from=simulator.DRIFT_FROM)


history = History(
    use_case="fraud",
    sources=(transactions, fraud_outcomes),
    load=load,
    drifted=load_drifted,
    drift_from="2018-08-29T00:00:00Z",
    live_from="2018-08-15T00:00:00Z",
    live_until="2018-10-01T00:00:00Z",
    requests=transactions,
    outcomes=fraud_outcomes,
    label="is_fraud",
    simulated=True,
    origin=(
        "Simulated after the design of the Fraud Detection Handbook (Le Borgne, Siblini, Lebichot, Bontempi; "
        "ULB, 2022); generated here, no data copied."
    ),
)
