"""The fraud monitor: cards and terminals against the range on which the champion was evaluated."""

from __future__ import annotations

from headway.monitoring.definitions import Monitor

monitor = Monitor(
    use_case="fraud",
    window_rows=2_000,
    # a new card or terminal has no history, which is no defect of the data
    cold=(
        "card_activity",
        "terminal_risk",
        "amount_to_mean_30d",
        "amount_to_max_30d",
        "mean_7d_to_mean_30d",
        "max_7d_to_mean_30d",
    ),
    # the clock moves these within every day and week: a window of some hours always differs from whole weeks
    ignore=("is_weekend", "is_night"),
)
