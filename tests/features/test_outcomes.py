from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import DefinitionError
from headway.features.aggregates import count
from headway.features.arrow import ARROW_TYPES
from headway.features.definitions import Entity, EventSource, FeatureService, OutcomesOf, WindowView
from headway.features.kernel import kernel_sha256
from headway.features.outcomes import decision_columns, made_id, outcome_events, outcome_sources, require_outcomes
from headway.features.quality.expectations import not_null

SHOP = Entity(name="shop", key="shop", dtype="string")
RETURNS = EventSource(
    name="returns",
    columns={"order": "int64", "shop": "string", "price": "float32", "returned": "int64", "why": "string"},
    id="order",
    bucket_by="shop",
    outcomes=OutcomesOf(use_case="orders", label="returned"),
)
VIEW = WindowView(name="shop_returns", entity=SHOP, source=RETURNS, aggregates=count("7d"), max_events=10)
SERVICE = FeatureService(name="orders_v1", views=(VIEW,), request={"price": "float32"}, event_id="order")
DECISIONS = pa.table(
    {
        "decision_id": ["d1", "d2", "d3"],
        "event_time": [10, 20, 30],
        "shop": ["a", "b", "c"],
        "price": pa.array([1.5, 2.5, 3.5], pa.float32()),
        "order": pa.array([7, None, 9], pa.int64()),
        "score": [0.1, 0.2, 0.3],
    }
)


def outcomes(*rows: tuple[str, int, int]) -> pa.Table:
    ids, labels, known = zip(*rows, strict=True)
    return pa.table(
        {
            "decision_id": list(ids),
            "label": pa.array(labels, pa.float32()),
            "known_time": list(known),
            "event_time": [5] * len(ids),
        }
    )


def test_an_outcome_becomes_the_row_that_was_decided_on_with_its_label() -> None:
    found = outcome_events(RETURNS, SERVICE, DECISIONS, outcomes(("d3", 1, 300), ("gone", 1, 301), ("d1", 0, 100)))
    assert found.column_names == [*RETURNS.columns, "event_time", "known_time", "decision_id"]
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        (9, "c", 3.5, 1, None, 30, 300, "d3"),
        (7, "a", 1.5, 0, None, 10, 100, "d1"),
    ]
    assert found.schema.field("why").type == pa.string()


def test_without_an_id_of_the_client_it_has_one_made_of_the_decisions() -> None:
    (row,) = outcome_events(RETURNS, SERVICE, DECISIONS, outcomes(("d2", 1, 1))).to_pylist()
    assert row["order"] == made_id("d2", "int64")
    assert row["order"] < 0
    bare = dataclasses.replace(SERVICE, event_id=None)
    kept = DECISIONS.drop_columns(["order"])  # a log from before the definition named an id
    for service, log in ((bare, DECISIONS), (SERVICE, kept)):
        (row,) = outcome_events(RETURNS, service, log, outcomes(("d1", 1, 1))).to_pylist()
        assert row["order"] == made_id("d1", "int64")
    text = dataclasses.replace(RETURNS, columns={**RETURNS.columns, "order": "string"})
    (row,) = outcome_events(text, bare, kept, outcomes(("d1", 1, 1))).to_pylist()
    assert row["order"] == "d1"


@given(st.text(min_size=1, max_size=64))
def test_made_ids_are_stable_negative_and_fit(decision: str) -> None:
    assert made_id(decision, "int64") == made_id(decision, "int64")
    assert -(2**63) < made_id(decision, "int64") < 0  # type: ignore[operator]  # an integer


def test_the_id_may_have_another_name_at_the_client_or_be_a_key() -> None:
    other = dataclasses.replace(SERVICE, event_id="reference")
    log = DECISIONS.append_column("reference", pa.array([70, None, 90], pa.int64()))
    found = outcome_events(RETURNS, other, log, outcomes(("d1", 1, 1), ("d2", 1, 1)))
    assert found["order"].to_pylist() == [70, made_id("d2", "int64")]
    assert decision_columns(RETURNS, other) == {
        "decision_id": "string", "event_time": "timestamp", "shop": "string", "price": "float32", "reference": "int64"
    }  # fmt: skip
    by_shop = dataclasses.replace(RETURNS, id="shop")
    assert outcome_events(by_shop, SERVICE, DECISIONS, outcomes(("d2", 1, 1)))["shop"].to_pylist() == ["b"]


@pytest.mark.parametrize("dtype", ["int64", "float32", "float64", "bool"])
def test_the_label_has_the_type_of_its_column(dtype: str) -> None:
    source = dataclasses.replace(RETURNS, columns={**RETURNS.columns, "returned": dtype})
    found = outcome_events(source, SERVICE, DECISIONS, outcomes(("d1", 1, 1), ("d2", 0, 1)))
    assert found["returned"].to_pylist() == [True, False]
    assert found.schema.field("returned").type == ARROW_TYPES[dtype]


def test_the_clients_id_changes_neither_hash_nor_model_input() -> None:
    without = dataclasses.replace(SERVICE, event_id=None)
    assert SERVICE.sha256() == without.sha256()
    assert kernel_sha256(SERVICE) == kernel_sha256(without)
    assert "order" not in SERVICE.features


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"outcomes": OutcomesOf(use_case="orders", label="retruned")}, "returns.outcomes.label"),
        ({"outcomes": OutcomesOf(use_case="orders", label="why")}, "returns.outcomes.label"),
        ({"outcomes": OutcomesOf(use_case="orders", label="order")}, "returns.outcomes.label"),
        ({"columns": {**RETURNS.columns, "price": "float64"}}, "returns.columns"),
        ({"columns": {**RETURNS.columns, "order": "string"}}, "returns.columns"),
        ({"columns": {**RETURNS.columns, "reference": "string"}, "id": "reference"}, "returns.id"),
        ({"columns": {**RETURNS.columns, "reference": "bool"}, "id": "reference"}, "returns.id"),
        ({"columns": {**RETURNS.columns, "order": "float64"}}, "returns.columns"),
        ({"bucket_by": "why"}, "returns.bucket_by"),
        ({"expectations": (not_null("why"),)}, "returns.expectations"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        require_outcomes(dataclasses.replace(RETURNS, **changes), SERVICE)
    assert caught.value.field == field


def test_an_unknown_use_case_is_named_with_the_known_ones() -> None:
    typo = dataclasses.replace(RETURNS, outcomes=OutcomesOf(use_case="ordrs", label="returned"))
    plain = dataclasses.replace(RETURNS, outcomes=None)
    known = {"orders": SERVICE}
    assert outcome_sources([plain, RETURNS], list(known), known.__getitem__) == [RETURNS]
    with pytest.raises(DefinitionError, match="orders") as caught:
        outcome_sources([typo], list(known), known.__getitem__)
    assert caught.value.field == "returns.outcomes.use_case"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event_id": "shop"}, "orders_v1.event_id"),
        ({"event_id": "price"}, "orders_v1.event_id"),
        ({"event_id": "shop_returns__count_7d"}, "orders_v1.event_id"),
        ({"event_id": "decision_id"}, "orders_v1.event_id"),
        ({"event_id": "event_time"}, "orders_v1.event_id"),
        ({"event_id_dtype": "float32"}, "orders_v1.event_id_dtype"),
    ],
)
def test_an_id_that_is_something_else_already_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        dataclasses.replace(SERVICE, **changes)
    assert caught.value.field == field
