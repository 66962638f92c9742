"""The contract's budgets as numbers: how often a false alarm may come, and how often a retraining.

A budget of false alarms accrues with decision time: a window that covers the time dt may raise a false alarm with
probability rate · dt. By linearity of expectation a month then holds at most `false_alarms_per_month` of them, however
the traffic varies, however windows depend on one another, and however many features there are.
"""

from __future__ import annotations

import msgspec

from headway.core.times import DAY
from headway.governance.contract_schema import Contract

MONTH = 30 * DAY
_MOST = 0.05
"""A window that covers weeks still has to be convincing; the rest of its budget is forfeited."""
_LEAST = 1e-9
"""A window of no duration (a replayed burst) gets this much, far below any budget."""


class DriftBudget(msgspec.Struct, frozen=True, kw_only=True):
    """`drift` of the contract."""

    false_alarms_per_month: float
    smallest_effect: float
    """KS distance, or total variation for categories."""

    def alpha(self, elapsed: int) -> float:
        """Return the false-alarm probability of a window that ends `elapsed` microseconds after the last one."""
        return min(_MOST, max(_LEAST, self.false_alarms_per_month * elapsed / MONTH))


class RetrainPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`retrain` of the contract, in decision time, so that replayed histories obey it too."""

    cooldown: int
    """Microseconds from one start to the next."""
    min_new_labels: int
    max_per_week: int


def drift_budget(contract: Contract) -> DriftBudget:
    """Return the budget that `drift` of the contract states."""
    return DriftBudget(
        false_alarms_per_month=contract.drift.false_alarms_per_month, smallest_effect=contract.drift.smallest_effect
    )


def retrain_policy(contract: Contract) -> RetrainPolicy:
    """Return the policy that `retrain` of the contract states."""
    retrain = contract.retrain
    return RetrainPolicy(
        cooldown=retrain.cooldown.microseconds,
        min_new_labels=retrain.min_new_labels,
        max_per_week=retrain.max_per_week,
    )
