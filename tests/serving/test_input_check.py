from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import DefinitionError, InvalidValue
from headway.features.definitions import FeatureService
from headway.features.quality.expectations import Severity, between, not_null, one_of
from headway.models.input_schema import FeatureSchema, InputSchema
from headway.serving.inference import InferenceProtocol
from headway.serving.input_check import InputCheck
from headway.serving.protocol import DecisionDecoder
from headway.serving.schema import DecisionSchema
from tests.serving.helpers import Toy, activity

ordered = FeatureService(
    name="ordered_v1",
    views=(activity,),
    request={"amount": "float32", "pieces": "int64", "channel": "string", "hurry": "bool"},
    features=("amount", "activity__count_7d"),
)
SCHEMA = InputSchema(
    features=(FeatureSchema(name="amount", minimum=1.0, maximum=100.0), FeatureSchema(name="activity__count_7d")),
    request=(
        FeatureSchema(name="pieces", dtype="int64", minimum=1, maximum=10),
        FeatureSchema(name="channel", dtype="string", categories=("app", "web")),
        FeatureSchema(name="hurry", dtype="bool"),
    ),
)


def expecting(*expectations: Any) -> FeatureService:
    return replace(ordered, expectations=expectations)


def version(schema: InputSchema = SCHEMA) -> Any:
    return SimpleNamespace(artefact=SimpleNamespace(input_schema=schema))


def columns(**given: list[Any]) -> dict[str, Any]:
    usual: dict[str, list[Any]] = {"amount": [5.0], "pieces": [1], "channel": ["web"], "hurry": [True]}
    types = {"amount": np.float32, "pieces": np.int64, "channel": object, "hurry": np.bool_}
    return {name: np.array(given.get(name, values), types[name]) for name, values in usual.items()}


def marked(check: InputCheck, **given: list[Any]) -> dict[str, list[bool]]:
    return {mark: rows.tolist() for mark, rows in check(columns(**given))}


numbers = st.floats(-50, 150, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, st.sampled_from(["app", "web", "post", ""])), min_size=1, max_size=20))
def test_exactly_the_unseen_is_marked(rows: list[tuple[float, str]]) -> None:
    check = InputCheck(ordered, lambda: [("champion", version())])
    found = marked(check, amount=[amount for amount, _ in rows], channel=[channel for _, channel in rows])
    expected = {
        "input:amount": [not 1.0 <= amount <= 100.0 for amount, _ in rows],
        "input:channel": [channel not in ("app", "web") for _, channel in rows],
    }
    assert found == {mark: rows for mark, rows in expected.items() if any(rows)}


def test_a_warning_marks_beside_what_was_seen() -> None:
    service = expecting(
        between("amount", 50, None, severity=Severity.WARN), one_of("channel", ("app",), severity=Severity.WARN)
    )
    check = InputCheck(service, lambda: [("champion", version())])
    assert marked(check, amount=[10.0, 60.0, 200.0], channel=["web", "app", "post"]) == {
        "input:amount": [True, False, True], "input:channel": [True, False, True],
    }  # fmt: skip


def test_it_follows_the_champion_and_without_one_knows_warnings_only() -> None:
    wide = InputSchema(features=(FeatureSchema(name="amount", minimum=0.0, maximum=1e6),))
    steps: list[tuple[str, Any]] = []
    check = InputCheck(ordered, lambda: steps)
    assert marked(check, amount=[1e3]) == {}
    steps[:] = [("champion", version()), ("previous", version(wide))]
    assert marked(check, amount=[1e3]) == {"input:amount": [True]}
    steps[:] = [("champion", version(wide)), ("previous", version())]
    assert marked(check, amount=[1e3], channel=["never seen"]) == {}


def test_what_was_never_seen_is_answered_and_marked(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    seen = InputSchema(features=(FeatureSchema(name="amount", minimum=0.0, maximum=50.0),))
    toy.scorer._unseen = InputCheck(toy.scorer._service, lambda: [("champion", version(seen))])
    rows = [{"customer_id": 1, "shop": "a", "amount": amount} for amount in (10, 60)]
    status, _, body = toy.call(lambda _: toy.http("POST", "/v1/decisions", json.dumps({"rows": rows}).encode()))
    assert status == 200
    assert [item["degraded"] for item in json.loads(body)["decisions"]] == [[], ["input:amount"]]


REFUSING = expecting(
    between("amount", 0, 1_000),
    between("pieces", 1.5, None),
    one_of("channel", ("app", "web")),
    one_of("pieces", (1, 2, 3)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"amount": -1}, "rows[1].amount"), ({"amount": 1_000.5}, "rows[1].amount"), ({"pieces": 1}, "rows[1].pieces"),
        ({"pieces": 4}, "rows[1].pieces"), ({"channel": "post"}, "rows[1].channel"), ({"hurry": 1}, "rows[1].hurry"),
        ({"channel": None}, "rows[1].channel"), ({"amount": None}, "rows[1].amount"),
    ],
)  # fmt: skip
def test_what_must_not_be_is_refused_by_its_row_and_column(changed: dict[str, Any], field: str) -> None:
    decoder = DecisionDecoder(DecisionSchema.of(REFUSING))
    good = {"customer_id": 1, "amount": 1, "pieces": 2, "channel": "web", "hurry": True}
    assert len(decoder.decode(json.dumps({"rows": [good, good]}).encode()).rows) == 2
    with pytest.raises(InvalidValue) as refused:
        decoder.decode(json.dumps({"rows": [good, good | changed]}).encode())
    assert refused.value.field == field


def test_tensors_are_held_against_the_same(tmp_path: Path) -> None:
    protocol = InferenceProtocol("toy", DecisionSchema.of(REFUSING))
    data = {"customer_id": ("INT64", 1), "amount": ("FP32", 1), "pieces": ("INT64", 2), "channel": ("BYTES", "web"),
            "hurry": ("BOOL", True)}  # fmt: skip

    def body(**changed: Any) -> bytes:
        inputs = [
            {"name": name, "datatype": kind, "shape": [1, 1], "data": [changed.get(name, value)]}
            for name, (kind, value) in data.items()
        ]
        return json.dumps({"inputs": inputs}).encode()

    assert len(protocol.decode(body())[0].rows) == 1
    with pytest.raises(InvalidValue) as refused:
        protocol.decode(body(channel="post"))
    assert refused.value.field == "inputs[3].data[0]"


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        (not_null("amount"), "many rows"), (between("amount", 0, 1, tolerance=0.1), "share"),
        (between("activity__count_7d", 0, 1), "no column"), (one_of("hurry", (True,)), "two values"),
    ],
)  # fmt: skip
def test_what_one_request_cannot_break_is_no_expectation_of_it(expectation: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        expecting(expectation)


def test_expectations_that_leave_nothing_are_refused() -> None:
    service = expecting(one_of("pieces", (5,)), between("pieces", 6, 9))
    with pytest.raises(DefinitionError, match="leave no value"):
        DecisionSchema.of(service).row_type()


def test_expectations_are_part_of_what_a_version_is_bound_to() -> None:
    assert ordered.sha256() != REFUSING.sha256()
    assert "expectations" not in ordered.describe()
