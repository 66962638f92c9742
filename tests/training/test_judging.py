"""What is declared about judging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import DefinitionError
from headway.training.judging import Gate, LabelSource, Segment
from tests.training import world


@given(st.lists(st.floats(-100, 100) | st.just(float("nan")), min_size=1, max_size=50))
def test_parts_of_bins_hold_every_row_once(values: list[float]) -> None:
    column = np.array(values)
    parts = Segment(column="amount", bins=(-10.0, 0.0, 10.0)).parts(column)
    assert np.sum(list(parts.values()), axis=0).tolist() == [1] * len(column)
    for name, rows in parts.items():
        assert name in {"amount=below -10", "amount=-10 to 0", "amount=0 to 10", "amount=from 10", "amount missing"}
        assert rows.any()


def test_values_are_parts_of_their_own_unless_there_are_too_many() -> None:
    parts = Segment(column="country").parts(np.array(["de", "fr", "de"]))
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "country=de": [True, False, True],
        "country=fr": [False, True, False],
    }
    with pytest.raises(DefinitionError, match="21 values"):
        Segment(column="country").parts(np.arange(21))
    with pytest.raises(DefinitionError, match="ascending"):
        Segment(column="amount", bins=(1.0, 1.0))


def test_a_source_lies_in_the_same_bucket_whatever_else_is_there() -> None:
    source = LabelSource(column="terminal_id", buckets=5)
    everyone = source.names(np.arange(1_000))
    assert source.names(np.array([7, 400])).tolist() == everyone[[7, 400]].tolist()
    assert len(set(everyone.tolist())) == 5
    assert source.ties == "terminal_id"
    assert LabelSource(column="annotator").ties is None
    assert LabelSource(column="annotator").names(np.array(["a", "b"])).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"gates": (Gate(metric="brier", ceiling=1, primary=True), Gate(metric="roc_auc", floor=0, primary=True))},
         "one primary"),
        ({"gates": (Gate(metric="roc_auc", floor=0.5, margin=-0.1),)}, "margin"),
        ({"verdicts": ("luck",)}, "consistency"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(changed: dict[str, object], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        replace(world.job, **changed)  # type: ignore[arg-type]  # fields by case


def test_columns_that_judging_needs_are_read_once() -> None:
    job = replace(
        world.job, segments=(Segment(column="amount"), Segment(column="visit_id")), blocks="customer_id",
        sources=LabelSource(column="customer_id", buckets=5),
    )  # fmt: skip
    assert job.judged_columns == ("visit_id", "customer_id")
    assert replace(world.job, blocks="day").judged_columns == ()
