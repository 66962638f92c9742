"""The repository's monitors speak of features that exist, and the contract's clauses reach the loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.project import Project
from headway.core.times import HOUR
from headway.features.definitions import FeatureService
from headway.governance.contract import load_contract
from headway.monitoring.budget import drift_budget, retrain_policy
from headway.monitoring.definitions import Monitor

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("use_case", ["fraud", "churn"])
def test_a_monitor_names_only_what_its_service_has(use_case: str) -> None:
    project = Project(ROOT)
    monitor = project.one("monitoring", use_case, Monitor)
    service = project.one("features", use_case, FeatureService)
    assert monitor.use_case == use_case
    known = {*service.features, *(view.name for view in service.views)}
    assert {*monitor.cold, *monitor.ignore, *monitor.categorical} <= known
    assert set(monitor.ignore) < set(service.features)


def test_nulls_of_new_entities_are_no_defect() -> None:
    monitor = Project(ROOT).one("monitoring", "fraud", Monitor)
    assert monitor.may_be_null("terminal_risk__count_7d")
    assert monitor.may_be_null("amount_to_max_30d")
    assert not monitor.may_be_null("amount")
    assert monitor.interval_s == 1.0


def test_the_contracts_clauses_are_the_budgets() -> None:
    contract = load_contract(ROOT / "serve_apps" / "fraud" / "contract.yaml").contract
    budget, policy = drift_budget(contract), retrain_policy(contract)
    assert (budget.false_alarms_per_month, budget.smallest_effect) == (
        contract.drift.false_alarms_per_month,
        contract.drift.smallest_effect,
    )
    assert policy.cooldown == 24 * HOUR
    assert (policy.min_new_labels, policy.max_per_week) == (
        contract.retrain.min_new_labels,
        contract.retrain.max_per_week,
    )
