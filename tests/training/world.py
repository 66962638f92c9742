"""A small use case of the tests' own: a shop whose customers' last amounts tell whether they return."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from headway.core.clock import Clock
from headway.core.times import DAY, SECOND, parse_time
from headway.core.types import Columns, Principal
from headway.features.aggregates import count, mean
from headway.features.definitions import Entity, EventSource, FeatureService, WindowView
from headway.features.lake.committer import Committer
from headway.features.lake.tables import Location
from headway.features.transformations import transformation
from headway.governance.contract import LoadedContract, contract_sha256, parse_contract
from headway.training.definitions import Gate, TrainingJob, XGBoostRecipe

START = parse_time("2018-01-01")
AS_OF = START + 70 * DAY
DELAY = 7 * DAY
PURPOSE = "model_training"

shopper = Entity(name="shopper", key="customer_id")
visits = EventSource(
    name="visits",
    columns={"visit_id": "int64", "customer_id": "int64", "amount": "float32"},
    id="visit_id",
    bucket_by="customer_id",
    buckets=2,
    purposes=(PURPOSE,),
)
returns = EventSource(
    name="returns",
    columns={"visit_id": "int64", "customer_id": "int64", "amount": "float32", "returned": "int64"},
    id="visit_id",
    bucket_by="customer_id",
    buckets=2,
    purposes=(PURPOSE,),
)
activity = WindowView(
    name="activity",
    entity=shopper,
    source=visits,
    aggregates=(*count("7d"), *mean("amount", "7d", "30d", scale=100)),
    max_events=100,
)


@transformation(inputs=("amount",), outputs=("amount_log",))
def logarithm(columns: Columns) -> Columns:
    """Amount on a logarithmic scale."""
    return {"amount_log": np.log1p(columns["amount"].astype(np.float32))}


shop_v1 = FeatureService(name="shop_v1", views=(activity,), request={"amount": "float32"}, transformations=(logarithm,))

recipe = XGBoostRecipe(params={"max_depth": 3, "nthread": 1}, rounds=20, checkpoint_every=10)
job = TrainingJob(
    use_case="shop",
    service=shop_v1,
    spine=returns,
    label="returned",
    label_delay="7d",
    train="40d",
    evaluate="14d",
    gap="1d",
    recipe=recipe,
    gates=(Gate(metric="roc_auc", floor=0.6), Gate(metric="brier", ceiling=0.25)),
    group="customer_id",
)
strict = replace(job, gates=(Gate(metric="roc_auc", floor=0.999),))


def tables(rows: int = 6_000) -> dict[str, pa.Table]:
    """Return visits over 70 days and whether each customer returned, which the amounts tell in part."""
    generator = np.random.default_rng(5)
    at = np.sort(generator.integers(START, AS_OF, rows))
    amount = generator.gamma(2.0, 20.0, rows).astype(np.float32)
    label = (amount + generator.normal(0, 15, rows) > 45).astype(np.int64)
    facts = {
        "visit_id": np.arange(rows, dtype=np.int64),
        "customer_id": generator.integers(0, 300, rows),
        "amount": amount,
    }
    return {
        "visits": pa.table({**facts, "event_time": at, "known_time": at + SECOND}),
        "returns": pa.table({**facts, "returned": label, "event_time": at, "known_time": at + DELAY}),
    }


def fill_lake(location: Location, clock: Clock) -> dict[str, pa.Table]:
    """Write the tables into an empty lake and return them."""
    committer = Committer(location, clock)
    made = tables()
    for source in (visits, returns):
        committer.append(source, made[source.name], "first")
    return made


def principal(clock: Clock, *scopes: str) -> Principal:
    """Return an identity with these scopes; none given: all that training needs."""
    granted = scopes or ("data:read", "train:shop", "registry:read", "registry:write")
    return Principal(
        sub="tester", kind="workload", scopes=frozenset(granted), purpose=PURPOSE, expires=clock.now() + DAY
    )


CONTRACT = """
apiVersion: headway/v1
kind: Contract
name: shop
owner: shop@example.com
description: Will this customer return?
decision:
  feature_service: shop_v1
  entity: [customer_id]
  request: {amount: float32, event_time: timestamp}
  output: {score: float32, label: {threshold: 0.5, names: [leaves, returns]}}
  positive_rate: 0.3
tier: cpu
latency: {p95_ms: 20, p99_ms: 45}
throughput: {ceiling_rps: 2000, beyond: shed}
availability: {target: 0.999, window: 30d}
accuracy: [{metric: roc_auc, floor: 0.6, window: 30d, on_breach: [alert]}]
freshness: [{view: activity, max_lag: 1h, on_stale: default}]
fallback: [previous, rules]
decision_log: durable
drift: {false_alarms_per_month: 1, smallest_effect: 0.1}
canary: {steps: [50], shadow: 0.1, alpha: 0.05, margins: {error_rate: 0.001, latency_p99_ms: 5, agreement: 0.02},
         max_hours: 24, on_timeout: hold}
retrain: {cooldown: 24h, min_new_labels: 1000, max_per_week: 2}
limits: {default_rps: 200, burst: 400}
privacy: {purposes: [model_training], retention: 400d}
signoff: [product, risk]
"""


def contract(text: str = CONTRACT) -> LoadedContract:
    """Return a contract that holds together; sign-off is not the pipeline's business."""
    parsed = parse_contract(text.encode())
    return LoadedContract(contract=parsed, sha256=contract_sha256(parsed), path=Path("contract.yaml"))
