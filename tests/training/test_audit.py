"""Training rows that no model should be fitted on, and the names of what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, spearmanr

from headway.core.clock import SystemClock
from headway.core.errors import InvalidValue
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.features.aggregates import mean
from headway.features.definitions import EventSource, FeatureService, WindowView
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from headway.training.audit import audit_rows, audit_sources, separation
from headway.training.dataset import pin_snapshots
from headway.training.definitions import TrainingJob, XGBoostRecipe
from tests.training import world

ROWS = 2_000
REGRESSION = replace(world.job, recipe=XGBoostRecipe(params={}, rounds=1, objective="reg:squarederror"))


def table(**columns: Any) -> pa.Table:
    """Return honest rows of the shop, with some columns replaced."""
    generator = np.random.default_rng(2)
    values: dict[str, Any] = {name: generator.normal(size=ROWS).astype(np.float32) for name in world.shop_v1.features}
    values["returned"] = (values["amount"] + generator.normal(size=ROWS) > 0).astype(np.int64)
    return pa.table({**values, "row_id": np.arange(ROWS), **columns})


def audit(block: pa.Table, job: TrainingJob = world.job) -> tuple[str, ...]:
    parts = [block.slice(start, 300) for start in range(0, len(block), 300)]
    return audit_rows(parts, job, rows=len(block))


def test_honest_rows_pass_without_a_word() -> None:
    assert audit(table()) == ()
    assert audit(table(returned=np.random.default_rng(3).normal(size=ROWS)), REGRESSION) == ()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.zeros(ROWS, np.int64), "returned: all 2,000 training rows have the label 0"),
        (np.ones(ROWS, np.int64), "returned: all 2,000 training rows have the label 1"),
        (np.arange(ROWS) % 3, "returned: holds other labels than 0 and 1"),
        (pa.array([None, *[1] * (ROWS - 1)]), "returned: 1 labels are null"),
        (np.where(np.arange(ROWS) == 5, np.nan, 1.0), "returned: holds NaN or infinite labels"),
        (pa.array(["yes", "no"] * (ROWS // 2)), "returned: string labels"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        audit(table(returned=labels))


def test_no_rows_are_refused() -> None:
    with pytest.raises(InvalidValue, match="train: no rows in the training range"):
        audit(table().slice(0, 0))


def test_an_infinite_feature_is_named() -> None:
    values = np.where(np.arange(ROWS) == 1_234, np.inf, 0.0).astype(np.float32)
    with pytest.raises(InvalidValue, match="amount_log: holds an infinite value"):
        audit(table(amount_log=values))


def test_constant_and_empty_features_are_named_and_kept() -> None:
    found = audit(table(amount_log=np.full(ROWS, 3, np.float32), amount=pa.nulls(ROWS, pa.float32())))
    assert [text.partition(" (")[0] for text in found] == ["only missing values: amount", "one value only: amount_log"]


def test_a_feature_that_is_the_label_is_named() -> None:
    block = table()
    block = block.set_column(block.schema.get_field_index("amount_log"), "amount_log", block["returned"])
    with pytest.raises(InvalidValue, match="amount_log equals the label") as caught:
        audit(block)
    assert (caught.value.field, caught.value.code) == ("amount_log", "leak")


@pytest.mark.parametrize("sign", [1, -1])
def test_a_feature_that_ranks_like_the_label_is_named_with_all_others(sign: int) -> None:
    block = table()
    label = block["returned"].to_numpy()
    noise = np.random.default_rng(4).normal(0, 0.1, ROWS)
    close = (sign * (label + noise)).astype(np.float32)
    missing = np.where(label == 1, np.nan, 7).astype(np.float32)  # that it is missing tells it all
    with pytest.raises(InvalidValue, match=r"amount_log alone ranks .*0\.99.*; |amount alone ranks"):
        audit(table(amount_log=close, amount=missing, returned=label))
    honest = replace(world.job, leak_bound=1.01)
    assert audit(table(amount_log=close, returned=label), honest) == ()


def test_a_perfect_ranking_of_a_few_rows_is_no_leak() -> None:
    label = (np.arange(ROWS) < 20).astype(np.int64)
    ranked = -np.arange(ROWS).astype(np.float32)
    assert audit(table(amount_log=ranked, returned=label)) == ()


def test_a_regressions_leak_is_found_by_rank() -> None:
    label = np.random.default_rng(5).normal(size=ROWS)
    with pytest.raises(InvalidValue, match="amount_log alone ranks"):
        audit(table(amount_log=np.exp(label).astype(np.float32), returned=label), REGRESSION)


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60))
def test_separation_is_the_area_or_the_correlation_of_ranks(pairs: list[tuple[int, bool]]) -> None:
    column, label = (np.array(side, dtype=np.float32) for side in zip(*pairs, strict=True))
    if 0 < label.sum() < len(label):
        count = mannwhitneyu(column[label == 1], column[label == 0]).statistic
        area = count / (label.sum() * (len(label) - label.sum()))
        assert separation(column, label) == pytest.approx(max(area, 1 - area))
        if len(set(column.tolist())) > 1:
            expected = abs(spearmanr(column, label).statistic)
            assert separation(column, label, regression=True) == pytest.approx(expected)


early = EventSource(
    name="early_returns", columns=world.returns.columns, id="visit_id", bucket_by="customer_id", buckets=2,
    purposes=(world.PURPOSE,),
)  # fmt: skip


def risk(offset: str | None = None) -> TrainingJob:
    """Return a job with a feature made of labels of another source."""
    view = WindowView(
        name="risk", entity=world.shopper, source=early, aggregates=mean("returned", "7d", offset=offset or "0s"),
        max_events=10,
    )  # fmt: skip
    service = FeatureService(name="shop_v1", views=(world.activity, view), request={"amount": "float32"})
    return replace(world.job, service=service)


def test_a_source_that_knows_the_label_too_early_is_named(settings: Settings) -> None:
    clock = SystemClock()
    tables = world.fill_lake(Location.of(settings), clock)
    rows = tables["returns"]
    known = pa.array(rows["event_time"].to_numpy() + DAY)
    position = rows.schema.get_field_index("known_time")
    Committer(Location.of(settings), clock).append(early, rows.set_column(position, "known_time", known), "early")
    reader = LakeReader(settings, MemoryAudit(clock), clock)
    principal = world.principal(clock)
    for job, wrong in ((risk(), True), (risk("5d"), True), (risk("6d"), False), (world.job, False)):
        snapshots = pin_snapshots(job, reader)
        if not wrong:
            audit_sources(job, reader, principal, snapshots, as_of=world.AS_OF)
            continue
        with pytest.raises(
            InvalidValue, match=r"risk__returned_mean_7d.* of 'early_returns' .* 'returns' 7d"
        ) as caught:
            audit_sources(job, reader, principal, snapshots, as_of=world.AS_OF)
        assert caught.value.code == "leak"
