"""The walk-forward backtest: when its folds are trained, and what it makes of them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from headway.core.errors import InvalidValue
from headway.core.times import DAY
from headway.training.backtest import Fold, fold_times, spreads
from headway.training.evaluate import Measure
from tests.training import world


def test_folds_walk_forward_without_counting_a_row_twice() -> None:
    times = fold_times(world.job, as_of=world.AS_OF, folds=3)
    assert times == [world.AS_OF - 28 * DAY, world.AS_OF - 14 * DAY, world.AS_OF]
    ranges = [world.job.ranges(time)[1] for time in times]
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    assert fold_times(world.job, as_of=100 * DAY, folds=2, every="20d") == [80 * DAY, 100 * DAY]


@pytest.mark.parametrize(
    ("folds", "every", "field"), [(0, None, "backtest"), (101, None, "backtest"), (2, "1d", "every")]
)
def test_folds_that_make_no_sense_are_refused(folds: int, every: str | None, field: str) -> None:
    with pytest.raises(InvalidValue) as error:
        fold_times(world.job, as_of=world.AS_OF, folds=folds, every=every)
    assert error.value.field == field


def test_the_worst_fold_of_a_loss_is_the_largest() -> None:
    def fold(value: float) -> Fold:
        measure = Measure(value=value, low=value, high=value, n=10)
        return Fold(as_of="", rows=1, evaluation_rows=1, metrics={"roc_auc": measure, "brier": measure})

    found = spreads([fold(0.7), fold(0.8), fold(0.9)])
    assert (found["roc_auc"].worst, found["brier"].worst) == (0.7, 0.9)
    assert found["roc_auc"].mean == pytest.approx(0.8)
    assert found["brier"].slope == pytest.approx(0.1)
    assert spreads([fold(0.7)])["brier"].slope == 0
