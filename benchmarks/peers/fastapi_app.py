"""FastAPI and XGBoost in one process: no identity, no feature store, no log; features come with the request."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from pydantic import BaseModel


class Rows(BaseModel):
    """One row of features."""

    features: list[float]


def create() -> Any:
    """Return the application; BENCHMARK_MODEL names the model file."""
    import xgboost
    from fastapi import FastAPI

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(os.environ["BENCHMARK_MODEL"])
    app = FastAPI()

    @app.post("/predict")
    async def predict(rows: Rows) -> dict[str, float]:
        score = booster.inplace_predict(np.array([rows.features], dtype=np.float32))
        return {"score": float(score[0])}

    return app
