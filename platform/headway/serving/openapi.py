"""What an application offers, as an OpenAPI document and as a page: forms of requests, never data or versions.

Neither needs a token. The page stands by itself: no script and no font of another host.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

import msgspec

from headway.core.times import EVENT_TIME
from headway.serving.errors import ErrorBody
from headway.serving.explaining import EXTRA_ROWS
from headway.serving.inference import InferBody
from headway.serving.invocations import InvocationsBody
from headway.serving.protocol import EXPLAIN, DecisionsBody, OutcomesBody
from headway.serving.reasons import ExplainedBody
from headway.serving.schema import DecisionSchema

_EXAMPLES: dict[str, Any] = {"int64": 1, "float32": 12.5, "float64": 12.5, "string": "a", "bool": True}
_DATATYPE = {"int64": "INT64", "float32": "FP32", "float64": "FP64", "string": "BYTES", "bool": "BOOL"}
_REFUSALS = {
    "400": "not JSON, or tensors that cannot be used",
    "401": "no token, or one that does not hold",
    "403": "the token lacks scope or purpose",
    "409": "the idempotency key came with another body",
    "413": "too many rows or bytes",
    "422": "a value is not what the schema allows; `field` names it",
    "429": "above the client's rate; Retry-After says when",
    "503": "shed or not ready; Retry-After says when",
}
_REF = "#/components/schemas/{name}"


def document(use_case: str, schema: DecisionSchema) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a use case's application."""
    row = schema.row_type()
    (row_schema, infer, invocations, outcomes, decisions, told, error), components = msgspec.json.schema_components(
        [row, InferBody, InvocationsBody, OutcomesBody, DecisionsBody, ExplainedBody, ErrorBody], ref_template=_REF
    )
    decide = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": {"type": "array", "minItems": 1, "items": row_schema},
            "id": {"type": "string", "description": "Idempotency key; repeated within ten minutes: the first answer."},
            "as_of": {"type": "string", "description": f"RFC 3339; needs the scope replay:{use_case}."},
        },
    }
    example = {name: _EXAMPLES[dtype] for name, dtype in schema.columns}
    tensors = [
        {"name": name, "shape": [1, 1], "datatype": _DATATYPE[dtype], "data": [_EXAMPLES[dtype]]}
        for name, dtype in schema.columns
    ]
    outcome = {"decision_id": "018bcfe5-6800-7429-8c45-e49985ae9131", "label": 1, EVENT_TIME: "2026-01-31T12:00:00Z"}
    may_decide = f"decide:{use_case}"
    answers = {"anyOf": [told, decisions]}
    post = _post("Decide on rows", may_decide, decide, answers, {"rows": [example]})
    post["parameters"] = [
        {
            "name": EXPLAIN, "in": "query", "required": False, "schema": {"type": "boolean", "default": False},
            "description": f"Reasons with each decision. A row then counts as {1 + EXTRA_ROWS} against the limits.",
        }
    ]  # fmt: skip
    paths = {
        "/v1/decisions": {"post": post},
        "/v1/outcomes": {
            "post": _post("Say what became of decisions", f"outcomes:{use_case}", outcomes, {}, {"outcomes": [outcome]})
        },
        "/invocations": {
            "post": _post("The same in MLflow's form", may_decide, invocations, {}, {"dataframe_records": [example]})
        },
        f"/v2/models/{use_case}/infer": {
            "post": _post("The same in the Open Inference Protocol", may_decide, infer, {}, {"inputs": tensors})
        },
        f"/v2/models/{use_case}": {"get": _get("Names and types of the model's tensors")},
        f"/v2/models/{use_case}/ready": {"get": _get("Whether the model serves", open_to_all=True)},
        "/v2": {"get": _get("The server and its extensions")},
        "/v2/health/live": {"get": _get("Whether the replica lives", open_to_all=True)},
        "/v2/health/ready": {"get": _get("Whether the use case is served", open_to_all=True)},
        "/v2/repository/index": {"post": _post("What is served", may_decide, {"type": "object"}, {}, {})},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": use_case, "version": "v1"},
        "servers": [{"url": f"/{use_case}"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Refused": error},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def page(described: dict[str, Any]) -> bytes:
    """Return the document as HTML."""
    title, base = described["info"]["title"], described["servers"][0]["url"]
    parts = [
        f"<h1>{escape(title)}</h1><p>Every call carries <code>authorization: Bearer …</code>"
        " (<code>headway token</code> prints a token) unless it says otherwise."
        ' The same as <a href="openapi.json">OpenAPI</a>.</p>'
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts.append(
                f"<h2><code>{method.upper()} {escape(base + path)}</code></h2><p>{escape(operation['summary'])}. "
                f"{escape(operation['description'])}</p>"
            )
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content:
                parts.append(f"<pre>{escape(json.dumps(content['example'], indent=2))}</pre>")
                schema = escape(json.dumps(content["schema"], indent=2))
                parts.append(f"<details><summary>Schema</summary><pre>{schema}</pre></details>")
    refusals = "".join(f"<tr><td>{status}</td><td>{escape(what)}</td></tr>" for status, what in _REFUSALS.items())
    shapes = escape(json.dumps(described["components"]["schemas"], indent=2))
    parts.append(f"<h2>Refusals</h2><table>{refusals}</table>")
    parts.append(f"<details><summary>All schemas</summary><pre>{shapes}</pre></details>")
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "pre{background:#f4f4f6;padding:.8rem;overflow:auto;border-radius:.4rem}h2{font-size:1.1rem;margin-top:2rem}"
        "td{padding:.1rem .8rem .1rem 0;vertical-align:top}"
    )
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style>{''.join(parts)}</html>"
    )
    return html.encode()


def _post(summary: str, scope: str, body: dict[str, Any], answer: dict[str, Any], example: Any) -> dict[str, Any]:
    responses: dict[str, Any] = {status: _refusal(what) for status, what in _REFUSALS.items()}
    responses["200"] = {"description": "done", "content": {"application/json": {"schema": answer}}}
    return {
        "summary": summary,
        "description": f"Needs the scope {scope}.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
        "responses": responses,
    }


def _get(summary: str, *, open_to_all: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": summary,
        "description": "Needs no token." if open_to_all else "",
        "responses": {"200": {"description": "done"}, "404": _refusal("there is no such model or version")},
    }
    if open_to_all:
        found["security"] = []
        found["responses"]["503"] = {"description": "not ready"}
    return found


def _refusal(what: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    return {"description": what, "content": {"application/json": {"schema": schema}}}
