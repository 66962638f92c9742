"""JSON Schemas of the wire formats, generated from the code; `docs/schemas/` holds them and a test keeps them current.

Write them anew: `python -m headway.governance.schemas docs/schemas`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from headway.core.errors import InvalidValue
from headway.core.routing import Routing
from headway.governance.audit_event import AuditEvent
from headway.governance.claims import TokenClaims
from headway.governance.contract_schema import Contract, Duration
from headway.governance.promotion import Decision, Proposal
from headway.governance.report import Report
from headway.governance.statement import ModelStatement

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES: dict[str, type] = {
    "audit_event": AuditEvent,
    "contract": Contract,
    "model_statement": ModelStatement,
    "promotion_decision": Decision,
    "promotion_proposal": Proposal,
    "report": Report,
    "routing": Routing,
    "token_claims": TokenClaims,
}


def schema(name: str) -> dict[str, Any]:
    """Return the schema of one wire format."""
    return {"$schema": DIALECT, **msgspec.json.schema(TYPES[name], schema_hook=_hook)}


def write_schemas(folder: Path) -> list[Path]:
    """Write all schemas and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in TYPES:
        path = folder / f"{name}.json"
        path.write_text(rendered(name))
        paths.append(path)
    return paths


def rendered(name: str) -> str:
    """Return the file content of one schema."""
    return json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"


def _hook(kind: type) -> dict[str, Any]:
    if kind is Duration:
        return {"type": "string", "pattern": r"^\d+(\.\d+)?(us|ms|s|m|h|d|w)$"}
    raise InvalidValue("schema", f"no JSON form for {kind.__name__}")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/schemas"))
