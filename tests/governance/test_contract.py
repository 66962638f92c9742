from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import DefinitionError
from headway.core.times import DAY, SECOND
from headway.governance.contract import (
    contract_builtins,
    contract_sha256,
    leaves,
    load_contract,
    overlay,
    parse_contract,
    save_contract,
)
from headway.governance.contract_schema import Contract, Duration, Limits
from headway.governance.contract_yaml import ContractYamlError, parse_yaml
from tests.governance.conftest import ROOT

TEXT = (ROOT / "serve_apps" / "fraud" / "contract.yaml").read_text()


TEXTS = st.text(st.characters(codec="utf-8")).filter(str.isprintable)


def changed(path: str, value: object) -> bytes:
    """Return the fraud contract with one leaf replaced; `...` removes it."""
    tree = yaml.safe_load(TEXT)
    here = tree
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        here = here[part]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return json.dumps(tree).encode()


@pytest.mark.parametrize("use_case", ["fraud", "churn"])
def test_the_contracts_of_the_repository_hold(use_case: str) -> None:
    loaded = load_contract(ROOT / "serve_apps" / use_case / "contract.yaml", name=use_case)
    assert loaded.contract.name == use_case
    assert loaded.sha256 == contract_sha256(loaded.contract)
    assert loaded.contract.privacy.retention.microseconds >= 400 * DAY


def test_durations_are_microseconds() -> None:
    contract = parse_contract(TEXT.encode())
    assert contract.freshness[0].max_lag.microseconds == 5 * SECOND
    assert contract.availability.window == Duration(30 * DAY)
    assert str(contract.availability.window) == "30d"


def test_the_hash_is_over_the_meaning() -> None:
    contract = parse_contract(TEXT.encode())
    reworded = TEXT.replace("max_lag: 5s", "max_lag: 5000ms").replace("window: 7d", "window: 1w") + "\n# a comment\n"
    reordered = yaml.safe_dump(dict(reversed(yaml.safe_load(TEXT).items())), sort_keys=False)
    for same in (reworded, reordered):
        assert contract_sha256(parse_contract(same.encode())) == contract_sha256(contract)
    assert contract_sha256(parse_contract(TEXT.replace("5s", "6s").encode())) != contract_sha256(contract)


def test_every_leaf_changes_the_hash() -> None:
    contract = parse_contract(TEXT.encode())
    original = contract_sha256(contract)
    seen = {original}
    numbers = [path for path, value in leaves(contract) if isinstance(value, float)]
    for path in numbers:
        dotted = path.replace("[", ".").replace("]", "")
        value = dict(leaves(contract))[path]
        seen.add(contract_sha256(parse_contract(changed(dotted, value * 0.999))))
    assert len(seen) == len(numbers) + 1


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"),
    [
        ("latency.p95_ms", "fast", "latency.p95_ms", "float"),
        ("latency.p95_ms", 0, "latency.p95_ms", "> 0"),
        ("latency.p95_ms", -1, "latency.p95_ms", "> 0"),
        ("latency.p95_ms", True, "latency.p95_ms", "float"),
        ("latency.p95_ms", 46, "latency.p99_ms", "at least 46"),
        ("latency.p50_ms", 5, "latency.p50_ms", "p95_ms"),
        ("latency", ..., "latency", "p95_ms, p99_ms"),
        ("owner", "nobody", "owner", ""),
        ("description", "a\u2028b", "description", "plain text"),
        ("apiVersion", "headway/v2", "apiVersion", "headway/v1"),
        ("name", "Fraud", "name", ""),
        ("name", "../etc", "name", ""),
        ("tier", "tpu", "tier", "cpu, gpu, edge"),
        ("throughput.ceiling_rps", ..., "throughput.ceiling_rps", "number"),
        ("throughput.beyond", "drop", "throughput.beyond", "shed"),
        ("availability.target", 1.0, "availability.target", "< 1"),
        ("availability.window", "30", "availability.window", "5s"),
        ("availability.window", 30, "availability.window", "5s"),
        ("availability.window", "0s", "availability.window", "more than 0"),
        ("availability.window", "99999999999999999999999d", "availability.window", "at most"),
        ("accuracy", [], "accuracy", "at least one"),
        ("accuracy.0.metric", "gini", "accuracy[0].metric", "roc_auc"),
        ("accuracy.0.metric", "brier", "accuracy[0].metric", "roc_auc"),
        ("accuracy.0.floor", 1.5, "accuracy[0].floor", "<= 1"),
        ("accuracy.0.on_breach", ["page"], "accuracy[0].on_breach[0]", "alert"),
        ("accuracy.0.on_breach", ["alert", "alert"], "accuracy[0].on_breach", "once"),
        ("accuracy.1.metric", "roc_auc", "accuracy", "once"),
        ("freshness.0.on_stale", "ignore", "freshness[0].on_stale", "reject"),
        ("freshness.1.view", "card_activity", "freshness", "once"),
        ("fallback", ["variant"], "fallback[0]", "variant:<model name>"),
        ("fallback", ["variant:Big"], "fallback[0]", "variant:<model name>"),
        ("fallback", ["rules", "previous"], "fallback", "rules last"),
        ("fallback", ["previous", "previous"], "fallback", "once"),
        ("fallback", [], "fallback", "at least one"),
        ("canary.steps", [50, 10], "canary.steps", "growing"),
        ("canary.steps", [], "canary.steps", "growing"),
        ("canary.steps", [5, 101], "canary.steps[1]", "<= 100"),
        ("canary.shadow", 1.1, "canary.shadow", "<= 1"),
        ("canary.margins.recall", 0.1, "canary.margins.recall", "agreement"),
        ("drift.smallest_effect", 0, "drift.smallest_effect", "> 0"),
        ("drift.false_alarm_per_month", 1, "drift.false_alarm_per_month", "false_alarms_per_month"),
        ("retrain.max_per_week", 1.5, "retrain.max_per_week", "int"),
        ("limits.burst", 0, "limits.burst", ">"),
        ("privacy.purposes", [], "privacy.purposes", "at least one"),
        ("signoff", [], "signoff", "at least one"),
        ("signoff", ["risk", "risk"], "signoff", "once"),
        ("signoff", ["a/b"], "signoff[0]", ""),
        ("decision.entity", [], "decision.entity", "at least one"),
        ("decision.request.amount", "decimal", "decision.request.amount", "float32"),
        ("decision.request.event_time", "int64", "decision.request.event_time", "timestamp"),
        ("decision.request.customer_id", "int64", "decision.request", "no entity keys"),
        ("decision.output.label.names", ["block", "block"], "decision.output.label.names", "different"),
        ("decision.output.label.names", ["block"], "decision.output.label.names", "length 2"),
        ("decision.positive_rate", 0, "decision.positive_rate", "> 0"),
        ("extra", 1, "extra", "apiVersion"),
    ],
)
def test_an_error_names_file_field_and_expected_form(path: str, value: object, field: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_contract(changed(path, value), file="serve_apps/fraud/contract.yaml")
    error = caught.value
    assert error.file == "serve_apps/fraud/contract.yaml"
    assert error.field == field
    assert error.expected
    assert expected in error.expected
    assert str(error).startswith(f"serve_apps/fraud/contract.yaml: {field}: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2\n", "'a' comes twice"),
        ("a: {b: 1, b: 2}\n", "'b' comes twice"),
        ("a: &x 1\nb: 2\n", "anchor"),
        ("a: [1]\nb: *x\n", "alias"),
        ("a: !!python/object/apply:os.system ['true']\n", "tag"),
        ("a: !!str 1\n", "tag"),
        ("1: a\n", "not a word"),
        ("? [a]\n: 1\n", "not a word"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("a: [1\n", "line"),
        ("[" * 50 + "]" * 50, "deeper"),
        ("a: \x00\n", "special characters"),
        ('a: "\\ud800"', "half a character"),
    ],
)
def test_yaml_with_two_meanings_is_refused(text: str, why: str) -> None:
    with pytest.raises(ContractYamlError, match=why):
        parse_yaml(text.encode())
    with pytest.raises(DefinitionError):
        parse_contract(text.encode())


def test_yaml_words_stay_words() -> None:
    text = (
        "a: no\nb: 12:30\nc: 2018-01-01\nd: .nan\ne: 0x10\nf: 1_000\ng: 1e-3\nh: 017\ni: 1.5\nj: -7\nk: null\nl: true"
    )
    assert parse_yaml(text.encode()) == {
        "a": "no", "b": "12:30", "c": "2018-01-01", "d": ".nan", "e": "0x10", "f": "1_000",
        "g": 0.001, "h": "017", "i": 1.5, "j": -7, "k": None, "l": True,
    }  # fmt: skip


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    with pytest.raises(DefinitionError):
        parse_contract(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, st.lists))
def test_plain_values_survive(value: object) -> None:
    try:
        parsed = parse_yaml(json.dumps(value, ensure_ascii=False).encode())
    except ContractYamlError as error:
        assert "deeper" in str(error)
    else:
        assert parsed == value


def test_infinity_by_overflow_is_refused() -> None:
    with pytest.raises(DefinitionError, match="finite"):
        parse_contract(TEXT.replace("ceiling_rps: 2000", "ceiling_rps: 1e999").encode())


def test_the_file_itself_must_be_plain_small_and_of_its_use_case(contract: Path, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="is the contract of 'fraud'"):
        load_contract(contract, name="churn")
    with pytest.raises(DefinitionError, match="cannot be read"):
        load_contract(tmp_path / "absent.yaml")
    link = contract.with_name("link.yaml")
    link.symlink_to(contract)
    pipe = contract.with_name("pipe.yaml")
    os.mkfifo(pipe)
    large = contract.with_name("large.yaml")
    large.write_text("#" * 70_000)
    for path in (link, pipe, large, contract.parent):
        with pytest.raises(DefinitionError):
            load_contract(path)


def test_an_overlay_is_another_contract_that_loads_back(contract: Path, tmp_path: Path) -> None:
    original = load_contract(contract)
    raised = overlay(original.contract, ceiling_rps=10_000, limits=Limits(default_rps=1e6, burst=1_000_000))
    saved = save_contract(raised, tmp_path / "contract.yaml")
    assert saved.contract == raised
    assert saved.sha256 != original.sha256
    assert saved.contract.throughput.ceiling_rps == 10_000
    assert saved.contract.latency == original.contract.latency
    assert overlay(original.contract) == original.contract
    with pytest.raises(DefinitionError):
        overlay(original.contract, ceiling_rps=-1)


def test_builtins_and_contract_are_inverse() -> None:
    contract = parse_contract(TEXT.encode())
    again = parse_contract(json.dumps(contract_builtins(contract)).encode())
    assert again == contract
    assert isinstance(again, Contract)
    assert msgspec.structs.asdict(again) == msgspec.structs.asdict(contract)
