"""The definitions fit one another, their contracts and their histories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

import features.churn as churn
import features.fraud as fraud
import training.churn
import training.fraud
from features.simulators import fraud as simulator
from headway.core.times import DAY, HOUR, KNOWN_TIME, parse_time
from headway.core.types import Columns
from headway.features.definitions import FeatureService
from headway.features.history import History
from headway.features.kernel import matrix, transform
from headway.features.quality.check import check
from headway.serving.fallback import Rules
from headway.training.definitions import TrainingJob
from serve_apps.churn.rules import rules as churn_rules
from serve_apps.fraud.rules import rules as fraud_rules

ROOT = Path(__file__).parents[2]
CASES = [
    pytest.param(fraud.history, training.fraud.job, fraud_rules, id="fraud"),
    pytest.param(churn.history, training.churn.job, churn_rules, id="churn"),
]
ARROW = {"int64": pa.int64(), "float32": pa.float32()}


def _tables(history: History) -> Mapping[str, pa.Table]:
    return simulator.tables(0, days=10) if history.use_case == "fraud" else history.load(0)


@pytest.mark.parametrize(("history", "job", "rules"), CASES)
def test_a_history_yields_what_its_sources_declare(history: History, job: TrainingJob, rules: Rules) -> None:
    found = _tables(history)
    assert set(found) == {source.name for source in history.sources}
    for source in history.sources:
        table = found[source.name]
        declared = {name: ARROW[dtype] for name, dtype in source.columns.items()}
        declared |= {"event_time": pa.int64(), "known_time": pa.int64()}
        assert {field.name: field.type for field in table.schema} == declared
        assert (np.diff(table["event_time"].to_numpy()) >= 0).all()
        assert len(np.unique(table[source.id].to_numpy())) == table.num_rows
        assert (table[KNOWN_TIME].to_numpy() > table["event_time"].to_numpy()).all()


@pytest.mark.parametrize(("history", "job", "rules"), CASES)
def test_a_history_keeps_what_its_sources_promise(history: History, job: TrainingJob, rules: Rules) -> None:
    found = _tables(history)
    for source in history.sources:
        table = found[source.name]
        assert source.expectations
        assert not check(source, table).rejected
        thousandfold = pc.multiply(table["amount"], pa.scalar(1_000.0, pa.float32()))
        broken = check(source, table.set_column(table.column_names.index("amount"), "amount", thousandfold))
        assert [finding.columns for finding in broken.rejected] == [("amount",)]


@pytest.mark.parametrize(("history", "job", "rules"), CASES)
def test_contract_sources_and_jobs_agree(history: History, job: TrainingJob, rules: Rules) -> None:
    contract = yaml.safe_load((ROOT / "serve_apps" / history.use_case / "contract.yaml").read_text())
    assert contract["decision"]["feature_service"] == job.service.name
    assert contract["decision"]["entity"] == list(job.service.keys)
    assert set(contract["decision"]["request"]) == {*job.service.request, "event_time"}
    assert {clause["view"] for clause in contract["freshness"]} <= {view.name for view in job.service.views}
    for source in history.sources:
        assert {*contract["privacy"]["purposes"], "model_training", "monitoring"} <= set(source.purposes)
    assert job.use_case == history.use_case == rules.use_case
    assert job.spine is history.outcomes
    assert job.label == history.label
    assert set(job.service.keys) | set(job.service.request) <= set(job.spine.columns)


@pytest.mark.parametrize(("history", "job", "rules"), CASES)
def test_training_at_the_start_of_the_live_range_has_data(history: History, job: TrainingJob, rules: Rules) -> None:
    (start, middle), (evaluate, end) = job.ranges(parse_time(history.live_from))
    first = simulator.START if history.use_case == "fraud" else parse_time("1997-01-01")
    assert first <= start < middle <= evaluate < end < parse_time(history.live_from)


def test_calendar_knows_weekends_and_nights() -> None:
    saturday = parse_time("2018-08-04")
    at = np.array([saturday, saturday - 1, saturday + 2 * DAY - 1, saturday + 2 * DAY, saturday + 6 * HOUR])
    made = fraud.calendar.function({"event_time": at})
    assert made["is_weekend"].tolist() == [1, 0, 1, 0, 1]
    assert made["is_night"].tolist() == [1, 0, 0, 1, 0]


@pytest.mark.parametrize("service", [fraud.fraud_v1, churn.churn_v1])
def test_one_row_is_transformed_to_the_bit_as_in_a_batch(service: FeatureService) -> None:
    rng = np.random.default_rng(2)
    n = 257
    names = [*service.request, *(name for view in service.views for name in view.features)]
    columns: Columns = {
        name: np.where(rng.random(n) < 0.2, np.nan, rng.gamma(2, 20, n)).astype(np.float32) for name in names
    }
    columns["amount"] = rng.gamma(2, 20, n).astype(np.float32)
    for name in names[1::3]:
        columns[name][:20] = 0.0
    at = rng.integers(0, 2**50, n)
    whole = matrix(service, transform(service, dict(columns), at))
    assert not np.isinf(whole).any()
    for row in range(0, n, 16):
        one: Columns = {name: values[row : row + 1] for name, values in columns.items()}
        single = matrix(service, transform(service, one, at[row : row + 1]))
        assert single.tobytes() == whole[row : row + 1].tobytes()


@pytest.mark.parametrize(("history", "job", "rules"), CASES)
def test_rules_answer_without_features_and_rise_with_the_amount(
    history: History, job: TrainingJob, rules: Rules
) -> None:
    amount = np.array([0.0, 10.0, 100.0, 219.0, 221.0, 1e6], dtype=np.float32)
    score = rules.apply({"amount": amount})
    assert (np.diff(score) >= 0).all()
    if history.use_case == "fraud":
        assert (score >= 0.5).tolist() == [False, False, False, False, True, True]
