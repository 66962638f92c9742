"""Poisoning: who turned labels, in a clean and in an attacked training set; fresh seeds of fraud, and the CDNOW data.

Each label is given to one of twenty annotators by chance; the attacker is one of them and knows the model's scores of
its own rows. It turns 1 % of all labels (or of its own), those nearest the boundary from 0 to 1, or the surest frauds
from 1 to 0 as far as it has them. Named means: the gate names the attacker, and nobody else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.fraud_protocol import Facts, our_features
from benchmarks.harness import Collector, Report
from features.churn import churn_v1
from features.loaders import cdnow
from features.simulators.fraud import START, tables
from headway.core.times import DAY
from headway.core.types import Matrix
from headway.features.definitions import WindowView
from headway.features.kernel import matrix, transform
from headway.features.windows.columns import window_columns
from headway.features.windows.events import build_events, make_records, scaled
from headway.training.gates.sources import out_of_source, suspects
from training.churn import job as churn_job
from training.fraud import job as fraud_job

Array = npt.NDArray[Any]
Case = tuple[str, int, Matrix, Array, Array]
"""Data set, seed, features, labels, clusters."""
SEEDS = tuple(range(200, 210))
ANNOTATORS = 20
SHARE = 0.01
_FROM, _UNTIL = START + 94 * DAY, START + 122 * DAY
"""The range on which the demo's first version trains."""
ATTACKS = (
    "boundary, of all labels",
    "boundary, of its own labels",
    "hidden, of all labels",
    "hidden, of its own labels",
)


def benchmark(*, quick: bool = False) -> Report:
    """Return the report; `quick`: two seeds, to see that it works."""
    collector = Collector("poisoning")
    measure(collector, SEEDS[:2] if quick else SEEDS)
    return collector.report()


def measure(collector: Collector, seeds: tuple[int, ...] = SEEDS) -> None:
    """Add results and bars for both data sets."""
    named: dict[tuple[str, str], list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for name, seed, features, label, cluster in cases(seeds):
        source = np.random.default_rng(seed).integers(0, ANNOTATORS, len(label))
        start = time.monotonic()
        found = suspects(features, label, source, cluster, seed=seed)
        seconds.setdefault(name, []).append(time.monotonic() - start)
        named.setdefault((name, "clean"), []).append(float(bool(found)))
        score, _ = out_of_source(features, label, source, seed=seed)
        for attack in ATTACKS:
            turned, attacker = poison(attack, label, score, source, seed)
            result = suspects(features, turned, source, cluster, seed=seed + 1)
            named.setdefault((name, attack), []).append(float([one.source for one in result] == [str(attacker)]))
        print(f"{name}, seed {seed} done", file=sys.stderr, flush=True)
    for (name, attack), hits in named.items():
        share = float(np.mean(hits))
        collector.add("headway", f"{name}: {attack}", "named", "ratio", hits)
        if attack == "clean":
            collector.hold(f"{name}: clean sets in which anybody is named", share, "ratio", "<=", 0.1)
        elif attack.endswith("of all labels"):
            collector.hold(f"{name}: 1 % turned, {attack}: named", share, "ratio", ">=", 0.9)
    for name, spent in seconds.items():
        median = collector.add("headway", f"{name}: clean", "gate", "s", spent)
        collector.hold(f"{name}: seconds of the gate", median, "s", "<=", 10.0)


def poison(attack: str, label: Array, score: Array, source: Array, seed: int) -> tuple[Array, int]:
    """Return the labels after the attack, and who made it."""
    attacker = int(np.random.default_rng(seed + 10_000).integers(0, ANNOTATORS))
    mine = np.flatnonzero(source == attacker)
    budget = int(SHARE * (len(label) if attack.endswith("of all labels") else len(mine)))
    if attack.startswith("boundary"):
        rows = mine[label[mine] == 0]
        rows = rows[np.argsort(np.abs(score[rows] - 0.5), kind="stable")][:budget]
    else:
        rows = mine[label[mine] == 1]
        rows = rows[np.argsort(-score[rows], kind="stable")][:budget]
    turned = label.copy()
    turned[rows] = 1 - turned[rows]
    return turned, attacker


def cases(seeds: tuple[int, ...]) -> Iterator[Case]:
    """Yield each data set under each seed; CDNOW is one data set, of which the seed draws annotators and attacker."""
    real = _churn()
    for seed in seeds:
        facts: Facts = {name: column.to_numpy() for name, column in _outcomes(seed)}
        rows = np.flatnonzero((facts["event_time"] >= _FROM) & (facts["event_time"] < _UNTIL))
        label = facts[fraud_job.label][rows].astype(np.float64)
        yield "fraud", seed, our_features(facts, rows), label, facts["terminal_id"][rows]
        yield "CDNOW", seed, *real


def _outcomes(seed: int) -> list[tuple[str, Any]]:
    outcomes = tables(seed, days=122)["fraud_outcomes"]
    return [(name, outcomes[name]) for name in outcomes.column_names]


def _churn() -> tuple[Matrix, Array, Array]:
    """Return the labelled purchases with the features of `churn_v1`, by the engine's kernel."""
    found = cdnow.tables()
    everything, labelled = found["purchases"], found["purchase_outcomes"]
    keys, at = everything["customer_id"].to_numpy(), everything["event_time"].to_numpy()
    columns: dict[str, Array] = {"amount": labelled["amount"].to_numpy()}
    moments, who = labelled["event_time"].to_numpy(), labelled["customer_id"].to_numpy()
    for view in churn_v1.stored:
        assert isinstance(view, WindowView), f"{view.name}: churn has windows only"
        values = [scaled(everything[name].to_numpy(), scale, field=name) for name, scale in view.columns]
        records = make_records(at, everything["known_time"].to_numpy(), everything["purchase_id"].to_numpy(), values)
        events = build_events(keys, records)
        row_key = np.searchsorted(events.keys, who).astype(np.int64)
        columns.update(window_columns(view, events, row_key, moments).columns)
    features = matrix(churn_v1, transform(churn_v1, columns, moments))
    return features, labelled[churn_job.label].to_numpy().astype(np.float64), who
