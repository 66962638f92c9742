"""How the churn model comes about."""

from __future__ import annotations

from features.churn import LABEL_DELAY, churn_v1, purchase_outcomes
from headway.training.definitions import Gate, Segment, TrainingJob, XGBoostRecipe

job = TrainingJob(
    use_case="churn",
    service=churn_v1,
    spine=purchase_outcomes,
    label="buys_again",
    label_delay=LABEL_DELAY,
    train="240d",
    evaluate="30d",
    recipe=XGBoostRecipe(
        params={"max_depth": 3, "eta": 0.1, "min_child_weight": 20, "subsample": 0.8, "lambda": 5}, rounds=100
    ),
    gates=(
        Gate(metric="roc_auc", floor=0.70, primary=True, margin=0.02),
        Gate(metric="brier", ceiling=0.23, margin=0.01),
    ),
    refresh="not_inferior",
    segments=(Segment(column="purchases__count", bins=(5.0,), minimum=500, margin=0.1),),
    calibration_error=0.12,
)
