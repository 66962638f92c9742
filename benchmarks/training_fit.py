"""Ray Train against `xgboost.train`: the same rows, parameters and threads, by turns in one run.

The rows lie in the object store before the clock runs, as they do in memory for the peer; what is timed is everything
from there to a booster: for Ray Train its start, the reading, the quantised matrix, the rounds and the checkpoints.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Collector
from headway.core.types import Matrix

ROWS, FEATURES, ROUNDS, RUNS = 1_700_000, 30, 300, 2
START_S = 15.0
BAR = 1.15
_PEER, _OURS = "xgboost.train", "headway"
_BLOCKS = 16
_MIB = 2**20


def make_rows(rows: int) -> tuple[Matrix, Matrix]:
    """Return float32 [n, 30] with 5 % missing values, and labels that some of the columns explain."""
    generator = np.random.default_rng(17)
    matrix = generator.standard_normal((rows, FEATURES), dtype=np.float32)
    signal = matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + np.abs(matrix[:, 3])
    label = (signal + generator.standard_normal(rows, dtype=np.float32) > 3.2).astype(np.float32)
    matrix[generator.random(matrix.shape, dtype=np.float32) < 0.05] = np.nan
    return matrix, label


def compare_fits(collector: Collector, storage: Path, *, quick: bool) -> None:
    """Measure both by turns and hold their ratio to the bar; Ray must be connected."""
    rows, rounds, runs = (100_000, 30, 1) if quick else (ROWS, ROUNDS, RUNS)
    matrix, label = make_rows(rows)
    dataset = _dataset(matrix, label)
    plain: list[float] = []
    ours: list[float] = []
    parts: dict[str, list[float]] = {"start": [], "read": [], "fit": [], "memory": []}
    for run in range(runs):
        plain.append(_plain(matrix, label, rounds))
        seconds, fit = _ray_train(dataset, rounds, storage, f"benchmark-{run}")
        ours.append(seconds)
        parts["start"].append(seconds - fit.read_s - fit.fit_s)
        parts["read"].append(fit.read_s)
        parts["fit"].append(fit.fit_s)
        parts["memory"].append(fit.memory / _MIB)
        print(f"{_PEER} {plain[-1]:.1f} s, {_OURS} {ours[-1]:.1f} s: {fit.summary()}", flush=True)
    case = f"{rows:,} rows × {FEATURES} features, {rounds} rounds"
    peer = collector.add(_PEER, case, "fit", "s", plain)
    whole = collector.add(_OURS, case, "whole", "s", ours)
    for name in ("start", "read", "fit"):
        collector.add(_OURS, case, name, "s", parts[name])
    collector.add(_OURS, case, "worker memory, shared blocks included", "MiB", parts["memory"])
    collector.add(_OURS, case, "rows as float32", "MiB", [matrix.nbytes / _MIB])
    collector.hold(f"Ray Train less {START_S:.0f} s of start, over {_PEER}", (whole - START_S) / peer, "×", "<=", BAR)


def _params() -> dict[str, float | int | str]:
    import os

    return {"max_depth": 4, "eta": 0.05, "subsample": 0.8, "nthread": os.cpu_count() or 1}


def _dataset(matrix: Matrix, label: Matrix) -> Any:
    import ray.data

    blocks = []
    for part in np.array_split(np.random.default_rng(5).permutation(len(label)), _BLOCKS):
        columns = {f"f{index}": pa.array(matrix[part, index]) for index in range(FEATURES)}
        blocks.append(pa.table(columns | {"label": pa.array(label[part]), "row_id": pa.array(part)}))
    return ray.data.from_arrow(blocks).materialize()


def _plain(matrix: Matrix, label: Matrix, rounds: int) -> float:
    import xgboost

    params: dict[str, float | int | str] = {"tree_method": "hist", "objective": "binary:logistic", "seed": 7}
    params |= _params()
    start = time.perf_counter()
    data = xgboost.QuantileDMatrix(matrix, label=label, nthread=int(params["nthread"]))
    xgboost.train(params, data, num_boost_round=rounds)
    return time.perf_counter() - start


def _ray_train(dataset: Any, rounds: int, storage: Path, name: str) -> tuple[float, Any]:
    from headway.training.definitions import XGBoostRecipe
    from headway.training.recipes.xgboost import fit

    features = tuple(f"f{index}" for index in range(FEATURES))
    recipe = XGBoostRecipe(params=_params(), rounds=rounds)
    start = time.perf_counter()
    found = fit(recipe, dataset, features=features, label="label", seed=7, run_name=name, storage=storage)
    return time.perf_counter() - start, found
