"""The churn monitor: purchases against the range on which the champion was evaluated."""

from __future__ import annotations

from headway.monitoring.definitions import Monitor

monitor = Monitor(
    use_case="churn",
    window_rows=1_000,
    # a first purchase has nothing before it
    cold=("purchases", "purchases_per_day", "recency_to_interval"),
    # nobody joins a fixed cohort: age and lifetime count rise with the calendar, whatever customers do
    ignore=("purchases__since_first", "purchases__count"),
)
