from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from headway.core.clock import ManualClock
from headway.core.routing import Routing, VersionRef
from headway.governance.audit import MemoryAudit
from headway.governance.contract import parse_contract
from headway.governance.issuing import development_issuer
from headway.governance.keys import MODEL_SIGN, signer_for
from headway.governance.schemas import TYPES, rendered, schema, write_schemas
from headway.governance.statement import sign_version
from tests.governance.conftest import ROOT

# The contract of the interface agreement; only line breaks differ.
AGREED = """
apiVersion: headway/v1
kind: Contract
name: fraud
owner: payments-risk@example.com
description: Block or allow a card transaction.
decision: {feature_service: fraud_v1, entity: [customer_id, terminal_id],
           request: {amount: float32, event_time: timestamp},
           output: {score: float32, label: {threshold: 0.5, names: [allow, block]}}, positive_rate: 0.008}
tier: cpu                              # cpu | gpu | edge; suggested at registration from the compute profile
latency: {p95_ms: 20, p99_ms: 45}      # request received to response sent
throughput: {ceiling_rps: 2000, beyond: shed}
availability: {target: 0.9999, window: 30d}
accuracy: [{metric: average_precision, floor: 0.55, window: 7d, on_breach: [alert, fallback, retrain]}]
freshness: [{view: card_activity, max_lag: 5s, on_stale: default}]   # reject | default | null | recompute
fallback: [previous, variant:fraud_small, rules]   # ladder below the champion
decision_log: durable
drift: {false_alarms_per_month: 1, smallest_effect: 0.1}
canary: {steps: [5, 10, 50], shadow: 0.1, alpha: 0.05, margins: {error_rate: 0.001, latency_p99_ms: 5, agreement: 0.02},
         max_hours: 24, on_timeout: hold}             # hold | rollback | promote
retrain: {cooldown: 24h, min_new_labels: 5000, max_per_week: 2}
limits: {default_rps: 200, burst: 400}
privacy: {purposes: [fraud_prevention], retention: 400d}
signoff: [product, risk, sre]
"""

REPORT = {
    "use_cases": {
        "fraud": {
            "clauses": [
                {"clause": "latency", "target": 45, "measured": 12.5, "unit": "ms", "verdict": "pass", "n": 9},
                {"clause": "up", "target": 1, "measured": None, "unit": "", "verdict": "not shown", "n": 0},
            ],
            "stages": [{"name": "train", "seconds": 12.5}],
            "latency_ms": {"p50": 1.0, "p95": 4.0, "p99": 12.5},
            "requests": 9000, "errors": 0, "replayed_reads": 10000, "mismatches": 0, "model": {"version": "3"},
        }
    },
    "environment": {"cores": 2}, "versions": {"ray": "2.60.0"},
}  # fmt: skip


def check(name: str, value: Any) -> None:
    jsonschema.Draft202012Validator(schema(name)).validate(value)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_the_schemas_in_the_documentation_are_current(name: str) -> None:
    path = ROOT / "docs" / "schemas" / f"{name}.json"
    assert path.read_text() == rendered(name), "run: python -m headway.governance.schemas docs/schemas"
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_no_schema_is_left_over(tmp_path: Path) -> None:
    names = {path.name for path in write_schemas(tmp_path)}
    assert {path.name for path in (ROOT / "docs" / "schemas").iterdir()} == names


def test_the_agreed_contract_parses_and_validates() -> None:
    assert parse_contract(AGREED.encode()).fallback == ("previous", "variant:fraud_small", "rules")
    check("contract", yaml.safe_load(AGREED))
    for use_case in ("fraud", "churn"):
        check("contract", yaml.safe_load((ROOT / "serve_apps" / use_case / "contract.yaml").read_text()))
    with pytest.raises(jsonschema.ValidationError):
        check("contract", {**yaml.safe_load(AGREED), "tier": "tpu"})
    with pytest.raises(jsonschema.ValidationError):
        check("contract", {**yaml.safe_load(AGREED), "extra": 1})


def test_an_audit_event_validates(audit: MemoryAudit) -> None:
    event = audit.append(
        actor="ann", kind="human", action="data.read", resource="events.purchases", purpose="p", outcome="done"
    )
    value = json.loads(event.to_line())
    check("audit_event", value)
    agreed = [
        "seq",
        "writer",
        "time",
        "actor",
        "kind",
        "action",
        "resource",
        "purpose",
        "outcome",
        "refs",
        "prev",
        "hash",
    ]
    assert sorted(value) == sorted(agreed)
    with pytest.raises(jsonschema.ValidationError):
        check("audit_event", {**value, "hash": "short"})


def test_a_model_statement_validates(version: Path, fields: dict[str, Any], settings: Any) -> None:
    envelope = sign_version(version, fields, signer_for(settings, MODEL_SIGN))
    value = json.loads(envelope.payload_bytes())
    check("model_statement", value)
    with pytest.raises(jsonschema.ValidationError):
        check("model_statement", {**value, "version": 3})


def test_token_claims_validate(tmp_path: Path, clock: ManualClock) -> None:
    token = development_issuer(tmp_path, clock).issue("ann", "human", ["decide:fraud"], "work")
    import jwt

    value = jwt.decode(token, options={"verify_signature": False})
    check("token_claims", value)
    with pytest.raises(jsonschema.ValidationError):
        check("token_claims", {**value, "kind": "root"})


def test_a_routing_record_validates() -> None:
    ref = VersionRef(version="3", path="/models/fraud/3", statement_sha256="0" * 64)
    check("routing", msgspec.to_builtins(Routing(generation=1, champion=ref, reason="first", changed_by="loop")))


def test_a_report_validates() -> None:
    check("report", REPORT)
    assert msgspec.convert(REPORT, TYPES["report"]).use_cases["fraud"].clauses[1].verdict == "not shown"
    broken = json.loads(json.dumps(REPORT))
    broken["use_cases"]["fraud"]["clauses"][0]["verdict"] = "fine"
    with pytest.raises(jsonschema.ValidationError):
        check("report", broken)
