"""The report of all gates as a signed document: what was held against what, whether or not the candidate passed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from headway.core.canonical import canonical
from headway.core.errors import Tampered
from headway.governance.files import PUBLIC, read_regular, write_atomic
from headway.governance.keys import MODEL_SIGN
from headway.governance.signing import MAX_ENVELOPE, Envelope, Signer, TrustRoot
from headway.training.gates.results import GateReport

GATES_FILE = "gates.dsse.json"
PAYLOAD_TYPE = "application/vnd.headway.gate-report+json"


def sign_report(report: GateReport, signer: Signer) -> Envelope:
    """Return the report in a signed envelope; a number that is none (NaN, infinite) is written as null."""
    return signer.sign(PAYLOAD_TYPE, canonical(_finite(msgspec.to_builtins(report))))


def write_report(envelope: Envelope, folder: Path) -> Path:
    """Write the envelope into a folder and return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / GATES_FILE
    write_atomic(path, envelope.to_json(), mode=PUBLIC)
    return path


def verify_report(path: Path, trust: TrustRoot) -> dict[str, Any]:
    """Return the report as builtin types; NotSigned or Tampered where it is not what was signed."""
    payload = trust.verify(Envelope.from_json(read_regular(path, limit=MAX_ENVELOPE)), PAYLOAD_TYPE, MODEL_SIGN)
    try:
        found: dict[str, Any] = msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Tampered(f"{path.name} cannot be parsed: {error}") from error
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
