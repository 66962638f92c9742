"""The published fraud protocol: the handbook's five baselines and our model on the same draws, metrics paired by draw.

Protocol, baseline features and hyper-parameters are those of the Fraud Detection Handbook (Le Borgne et al., ULB,
2022), chapters 3 to 5: train on 25-31 July 2018, test on 8-14 August, customers known to be compromised taken out of
each test day. The baselines' windows include the current transaction, as in the handbook; ours see only what was known
before it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Collector, Report
from features.fraud import fraud_v1
from features.simulators.fraud import tables
from headway.core.times import DAY, parse_time
from headway.core.types import Columns
from headway.features.definitions import WindowView
from headway.features.kernel import matrix, transform
from headway.features.windows.columns import window_columns
from headway.features.windows.events import build_events, make_records, scaled
from headway.training.definitions import XGBoostRecipe
from headway.training.metrics import Ranking, card_precision
from headway.training.recipes.xgboost import fit_local
from training.fraud import job

Real = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Facts = dict[str, npt.NDArray[Any]]

OURS = "headway"
SEEDS = (0, 1, 2, 3, 4)
METRICS = ("roc_auc", "average_precision", "card_precision_at_100")
TRAIN_FROM, TRAIN_UNTIL = parse_time("2018-07-25"), parse_time("2018-08-01")
TEST_FROM, TEST_UNTIL = parse_time("2018-08-08"), parse_time("2018-08-15")
DELAY = 7 * DAY
WINDOWS = (1 * DAY, 7 * DAY, 30 * DAY)
PUBLISHED = {
    "logistic regression": (0.871, 0.606, 0.291),
    "decision tree, depth 2": (0.763, 0.496, 0.241),
    "decision tree, unlimited": (0.788, 0.309, 0.243),
    "random forest": (0.867, 0.658, 0.287),
    "xgboost": (0.862, 0.639, 0.273),
}


def benchmark(*, quick: bool = False) -> Report:
    """Return the report over five draws; `quick`: one, to see that it works."""
    return report(run((0,) if quick else SEEDS))


def run(seeds: Sequence[int] = SEEDS) -> dict[str, Real]:
    """Return system → float64 [draws, METRICS], telling progress on standard error."""
    scores: dict[str, list[tuple[float, ...]]] = {}
    for seed in seeds:
        for system, measured in one_draw(seed).items():
            scores.setdefault(system, []).append(measured)
        print(f"draw {seed} of {len(seeds)} done", file=sys.stderr, flush=True)
    table = {system: np.array(runs) for system, runs in scores.items()}
    print(_table(table), file=sys.stderr, flush=True)
    return table


def report(table: Mapping[str, Real]) -> Report:
    """Return results beside the published figures, and one bar per baseline and metric: our paired mean gain."""
    collector = Collector("fraud_protocol")
    for system, runs in table.items():
        for column, metric in enumerate(METRICS):
            collector.add(system, "handbook protocol, own draws", metric, "ratio", runs[:, column].tolist())
    for system, values in PUBLISHED.items():
        for metric, value in zip(METRICS, values, strict=True):
            collector.add(system, "handbook protocol, published", metric, "ratio", [value])
    for system in PUBLISHED:
        gains = (table[OURS] - table[system]).mean(axis=0)
        for metric, gain in zip(METRICS, gains.tolist(), strict=True):
            collector.hold(f"{metric}, headway minus {system}, paired mean", gain, "ratio", ">=", 0.0)
    return collector.report()


def one_draw(seed: int) -> dict[str, tuple[float, ...]]:
    """Return the METRICS of every system on one simulated history."""
    facts: Facts = {name: column.to_numpy() for name, column in _columns(seed)}
    at = facts["event_time"]
    train = (at >= TRAIN_FROM) & (at < TRAIN_UNTIL)
    test = _test_rows(facts)
    rows = np.flatnonzero(train | test)
    in_train, in_test = train[rows], test[rows]
    label = facts["is_fraud"][rows]

    def measure(score: npt.NDArray[Any]) -> tuple[float, ...]:
        ranking = Ranking(label[in_test], score)
        days = card_precision(label[in_test], score, facts["customer_id"][rows][in_test], at[rows][in_test])
        return ranking.roc_auc(), ranking.average_precision(), float(days.mean())

    theirs = handbook_features(facts, rows)
    measured = {
        system: measure(_fit_baseline(model, theirs[in_train], label[in_train], theirs[in_test]))
        for system, model in _baselines().items()
    }
    ours = our_features(facts, rows)
    if not isinstance(job.recipe, XGBoostRecipe):
        raise TypeError(f"{job.use_case} is trained by {type(job.recipe).__name__}")
    booster = fit_local(job.recipe, ours[in_train], label[in_train].astype(np.float32), seed=job.seed)
    measured[OURS] = measure(np.asarray(booster.inplace_predict(ours[in_test])))
    return measured


def _columns(seed: int) -> list[tuple[str, Any]]:
    outcomes = tables(seed)["fraud_outcomes"]
    size = int(np.searchsorted(outcomes["event_time"].to_numpy(), TEST_UNTIL))
    outcomes = outcomes.slice(0, size)
    return [(name, outcomes[name]) for name in outcomes.column_names]


def _test_rows(facts: Facts) -> Flags:
    """Return the test week without the customers whose fraud is known by each day (handbook, `get_train_test_set`)."""
    at, customer, fraud = facts["event_time"], facts["customer_id"], facts["is_fraud"] == 1
    chosen = np.zeros(at.size, dtype=np.bool_)
    for day in range(TEST_FROM, TEST_UNTIL, DAY):
        known = fraud & (at >= TRAIN_FROM) & (at < day - DELAY)
        today = (at >= day) & (at < day + DAY)
        chosen |= today & ~np.isin(customer, customer[known])
    return chosen


def our_features(facts: Facts, rows: Int) -> npt.NDArray[np.float32]:
    """Return float32 [n, k] of `fraud_v1` by the engine's kernel, with what was known at each decision."""
    at = facts["event_time"][rows]
    columns: Columns = {"amount": facts["amount"][rows]}
    for view in fraud_v1.stored:
        assert isinstance(view, WindowView), f"{view.name}: the protocol has windows only"
        known = facts["event_time"] + DELAY if view.source.name == "fraud_outcomes" else facts["event_time"] + 1_000_000
        columns.update(_window_features(view, facts, known, rows, at))
    return matrix(fraud_v1, transform(fraud_v1, columns, at))


def _window_features(view: WindowView, facts: Facts, known: Int, rows: Int, at: Int) -> Columns:
    keys = facts[view.entity.keys[0]]
    values = [scaled(facts[name], scale, field=name) for name, scale in view.columns]
    events = build_events(keys, make_records(facts["event_time"], known, facts[view.source.id], values))
    row_key = np.searchsorted(events.keys, keys[rows]).astype(np.int64)
    return dict(window_columns(view, events, row_key, at).columns)


def handbook_features(facts: Facts, rows: Int) -> Real:
    """Return float64 [n, 15]: the handbook's inputs, windows including the current transaction, empty risk as 0."""
    at = facts["event_time"]
    day = at[rows] // DAY
    columns: list[npt.NDArray[Any]] = [
        facts["amount"][rows],
        (day + 3) % 7 >= 5,
        at[rows] % DAY // (DAY // 24) <= 6,
    ]
    for window in WINDOWS:
        number, amount = _rolling(facts["customer_id"], at, facts["amount"], rows, window, delay=0)
        columns += [number, amount / number]
    for window in WINDOWS:
        number, frauds = _rolling(facts["terminal_id"], at, facts["is_fraud"], rows, window, delay=DELAY)
        columns += [number, frauds / np.maximum(number, 1)]
    return np.column_stack(columns).astype(np.float64)


def _rolling(
    key: Int, at: Int, value: npt.NDArray[Any], rows: Int, window: int, *, delay: int
) -> tuple[npt.NDArray[Any], Real]:
    """Return count and sum over (t - delay - window, t - delay] of the rows' own key."""
    order = np.argsort(key, kind="stable")
    start, span = int(at.min()) - 40 * DAY, int(at.max() - at.min()) + 80 * DAY
    place = key[order] * span + (at[order] - start)
    sums = np.concatenate([np.zeros(1), np.cumsum(value[order].astype(np.float64))])
    ends = key[rows] * span + (at[rows] - start - delay)
    last = np.searchsorted(place, ends, side="right")
    first = np.searchsorted(place, ends - window, side="right")
    return last - first, sums[last] - sums[first]


def _baselines() -> Mapping[str, Any]:
    """Return the handbook's models with its hyper-parameters (chapter 5, default parameters, random_state 0)."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier
    from xgboost import XGBClassifier

    return {
        "logistic regression": LogisticRegression(random_state=0),
        "decision tree, depth 2": DecisionTreeClassifier(max_depth=2, random_state=0),
        "decision tree, unlimited": DecisionTreeClassifier(random_state=0),
        "random forest": RandomForestClassifier(random_state=0, n_jobs=-1),
        "xgboost": XGBClassifier(random_state=0, n_jobs=-1),
    }


def _fit_baseline(model: Any, train: Real, label: npt.NDArray[Any], test: Real) -> Real:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    model.fit(scaler.transform(train), label)
    return np.asarray(model.predict_proba(scaler.transform(test))[:, 1], dtype=np.float64)


def _table(table: Mapping[str, Real]) -> str:
    lines = [f"{'mean of draws (published)':28}" + "".join(f"{metric:>26}" for metric in METRICS)]
    for system, runs in table.items():
        published = PUBLISHED.get(system)
        beside = [f"({value:.3f})" if published else "" for value in published or (0.0,) * len(METRICS)]
        cells = "".join(f"{f'{mean:.4f} {known}':>26}" for mean, known in zip(runs.mean(axis=0), beside, strict=True))
        lines.append(f"{system:28}{cells}")
    return "\n".join(lines)
