"""Features of a shop's purchases: how often, how much, how long ago.

Each purchase is a decision: will this customer buy again within 90 days? A purchase is known one second after it
happens, so the decision about it never sees itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from features.loaders import cdnow
from headway.core.types import Columns
from headway.features.aggregates import count, mean, since_first, since_last, total
from headway.features.definitions import Entity, EventSource, FeatureService, WindowView
from headway.features.history import History
from headway.features.quality.expectations import between, known_within, not_null, one_of, unique
from headway.features.transformations import transformation

OWNER = "customer-growth@example.com"
PURPOSES = ("customer_retention", "model_training", "monitoring")
LABEL_DELAY = "90d"
PURCHASE = (unique("purchase_id"), not_null("customer_id"), not_null("amount"), between("amount", 0, 10_000))

customer = Entity(name="shopper", key="customer_id", description="Customer of the shop.")

purchases = EventSource(
    name="purchases",
    columns={"purchase_id": "int64", "customer_id": "int64", "amount": "float32"},
    id="purchase_id",
    bucket_by="customer_id",
    purposes=PURPOSES,
    expectations=(*PURCHASE, known_within("1h", tolerance=0.01)),
    owner=OWNER,
    description="Purchases; known one second after they happen.",
)

purchase_outcomes = EventSource(
    name="purchase_outcomes",
    columns={"purchase_id": "int64", "customer_id": "int64", "amount": "float32", "buys_again": "int64"},
    id="purchase_id",
    bucket_by="customer_id",
    purposes=PURPOSES,
    expectations=(*PURCHASE, not_null("buys_again"), one_of("buys_again", (0, 1)), known_within(LABEL_DELAY)),
    owner=OWNER,
    description="Whether the customer bought again on a later day within 90 days; known 90 days after the purchase.",
)

purchase_activity = WindowView(
    name="purchases",
    entity=customer,
    source=purchases,
    aggregates=(
        *count("7d", "30d", "90d"),
        *total("amount", "7d", "30d", "90d", scale=100),
        *mean("amount", "7d", "30d", "90d", scale=100),
        *count(),
        *since_first(),
        *since_last(),
    ),
    max_events=512,
    owner=OWNER,
    description="A customer's purchases before this one.",
)


@transformation(
    inputs=("purchases__count", "purchases__since_first", "purchases__since_last"),
    outputs=("purchases_per_day", "recency_to_interval"),
)
def rhythm(columns: Columns) -> Columns:
    """Purchase rate so far, and the last gap relative to the mean gap; missing for a first purchase."""
    number = columns["purchases__count"].astype(np.float32)
    age = columns["purchases__since_first"].astype(np.float32)
    gap = columns["purchases__since_last"].astype(np.float32)
    known = age > 0
    rate = np.full(age.shape, np.nan, dtype=np.float32)
    np.divide(number, age, out=rate, where=known)
    return {"purchases_per_day": rate, "recency_to_interval": gap * rate}


churn_v1 = FeatureService(
    name="churn_v1",
    views=(purchase_activity,),
    request={"amount": "float32"},
    transformations=(rhythm,),
    description="Will this customer buy again within 90 days of this purchase?",
)


def load(seed: int) -> Mapping[str, pa.Table]:
    """Read the CDNOW purchases; real data, so the seed changes nothing."""
    del seed
    return cdnow.tables()


history = History(
    use_case="churn",
    sources=(purchases, purchase_outcomes),
    load=load,
    live_from="1998-01-01T00:00:00Z",
    live_until="1998-07-01T00:00:00Z",
    requests=purchases,
    outcomes=purchase_outcomes,
    label="buys_again",
    origin="CDNOW purchases 1997-98 (Fader and Hardie), as distributed in the package lifetimes 0.11.3 (MIT).",
)
