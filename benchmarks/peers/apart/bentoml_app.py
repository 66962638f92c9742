"""BentoML and XGBoost: one worker, access log off.

`BENTOML_MODEL=FILE bentoml serve bentoml_app:Predict --port PORT`, or `python bentoml_app.py PORT MODEL`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import numpy as np


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Predict:
    """One row to one score."""

    def __init__(self) -> None:
        import xgboost

        self.booster = xgboost.Booster({"nthread": 1})
        self.booster.load_model(os.environ["BENTOML_MODEL"])

    @bentoml.api
    def predict(self, features: list[float]) -> dict[str, Any]:
        """Return the score."""
        return {"score": float(self.booster.inplace_predict(np.array([features], dtype=np.float32))[0])}


def main() -> None:
    """Become `bentoml serve`."""
    here = Path(__file__).resolve()
    program = str(Path(sys.executable).with_name("bentoml"))
    environment = {**os.environ, "BENTOML_MODEL": sys.argv[2], "BENTOML_DO_NOT_TRACK": "True"}
    arguments = [program, "serve", f"{here.stem}:Predict", "--host", "127.0.0.1", "--port", sys.argv[1]]
    os.chdir(here.parent)
    os.execve(program, arguments, environment)


if __name__ == "__main__":
    main()
