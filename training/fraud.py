"""How the fraud model comes about."""

from __future__ import annotations

from features.fraud import LABEL_DELAY, fraud_outcomes, fraud_v1
from headway.training.definitions import Gate, TrainingJob, XGBoostRecipe

job = TrainingJob(
    use_case="fraud",
    service=fraud_v1,
    spine=fraud_outcomes,
    label="is_fraud",
    label_delay=LABEL_DELAY,
    train="28d",
    evaluate="7d",
    recipe=XGBoostRecipe(
        params={
            "max_depth": 4,
            "eta": 0.05,
            "min_child_weight": 2,
            "subsample": 0.8,
            "colsample_bytree": 0.7,
            "lambda": 5,
        },
        rounds=200,
    ),
    gates=(
        Gate(metric="average_precision", floor=0.55, primary=True, margin=0.05),
        Gate(metric="roc_auc", floor=0.80, margin=0.03),
    ),
    group="customer_id",
    # an alarm comes before the labels of the world that it tells of: newer data must not make the model worse
    refresh="not_inferior",
)
