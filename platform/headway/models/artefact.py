"""The folder of a model version: what training writes, what a replica loads, and in which order it may trust it.

```
model.json          XGBoost's trees            profile.json       reference counts for drift
model.onnx          the same trees             input_schema.json  types, ranges, nulls
warmup.json         rows, expected scores      definition.json    feature service and job, as hashed
backends.json       what serving it costs, and with which back end (headway.models.compute)
statement.dsse.json signed; names every other file with size and SHA-256
```
The statement is verified (`governance.statement.verify_version`) before `load_artefact` parses anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headway.core.canonical import canonical
from headway.core.clock import Clock
from headway.core.errors import InvalidValue, Tampered
from headway.core.types import Matrix
from headway.features.profile import Profile
from headway.governance.statement import ModelStatement, read_file
from headway.models.backend import Backend
from headway.models.backends import model_file, open_backend
from headway.models.input_schema import InputSchema
from headway.models.parity import BackendReport, compare
from headway.models.probe import WARMUP_FILE, probe
from headway.models.validation import parse_model_json
from headway.models.warmup import Warmup, make_warmup

PROFILE_FILE, SCHEMA_FILE, DEFINITION_FILE = "profile.json", "input_schema.json", "definition.json"


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A version ready to serve."""

    backend: Backend
    profile: Profile
    input_schema: InputSchema
    warmup: Warmup
    statement: ModelStatement


def write_artefact(
    folder: Path,
    *,
    models: Mapping[str, bytes],
    profile: Profile,
    input_schema: InputSchema,
    sample: Matrix,
    definition: Mapping[str, Any],
    clock: Clock,
) -> tuple[BackendReport, ...]:
    """Write every file but the statement into an empty folder; return the back ends' reports, the chosen one first.

    Args:
        folder: Made if it does not exist; InvalidValue if it holds anything, since the signed file set is exact.
        models: Back end → model file; the first is the reference that the others must equal.
        profile: Reference profile of features and score.
        input_schema: Columns in the order of the matrix.
        sample: float32 [n ≥ 1, k], rows on which parity is measured and from which the warm-up is drawn.
        definition: Feature service and job as builtin types.
        clock: For the measurement.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InvalidValue("folder", f"{folder.name} is not empty", hint="write each version into a new folder")
    for name, data in models.items():
        (folder / model_file(name)).write_bytes(data)
    backends = {name: open_backend(name, data) for name, data in models.items()}
    reference, *others = backends.values()
    reports = compare(reference, tuple(others), sample, clock)
    warmup = make_warmup(input_schema.names, sample, backends[reports[0].name])
    (folder / WARMUP_FILE).write_bytes(msgspec.json.encode(warmup))
    (folder / SCHEMA_FILE).write_bytes(msgspec.json.encode(input_schema))
    (folder / PROFILE_FILE).write_bytes(profile.to_json())
    (folder / DEFINITION_FILE).write_bytes(canonical(dict(definition)))
    return reports


def load_artefact(folder: Path, statement: ModelStatement, *, trial: bool = True) -> Artefact:
    """Parse a folder whose statement `verify_version` returned, and warm up; Tampered when anything does not fit.

    Args:
        folder: The verified folder.
        statement: What `verify_version` returned for it.
        trial: Load in a child process first; False only where this very statement was tried before.
    """
    model = read_file(folder, statement, model_file(statement.backend))
    if statement.backend == "xgboost":
        parse_model_json(model)
    if trial:
        probe(folder, statement.backend)
    try:
        warmup = msgspec.json.decode(read_file(folder, statement, WARMUP_FILE), type=Warmup)
        schema = msgspec.json.decode(read_file(folder, statement, SCHEMA_FILE), type=InputSchema)
    except msgspec.MsgspecError as error:
        raise Tampered(f"{folder.name} cannot be read: {error}") from error
    profile = Profile.from_json(read_file(folder, statement, PROFILE_FILE))
    if profile.sha256() != statement.reference_profile_sha256:
        raise Tampered(f"{folder.name}: {PROFILE_FILE} is not the profile that the statement names")
    if not warmup.features == schema.names == tuple(profile.names[:-1]):
        raise Tampered(f"{folder.name}: warm-up, input schema and profile name different features")
    backend = open_backend(statement.backend, model)
    warmup.check(backend)
    return Artefact(backend=backend, profile=profile, input_schema=schema, warmup=warmup, statement=statement)


def read_definition(folder: Path, statement: ModelStatement) -> dict[str, Any]:
    """Return `definition.json` of a verified folder."""
    definition: dict[str, Any] = json.loads(read_file(folder, statement, DEFINITION_FILE))
    return definition
