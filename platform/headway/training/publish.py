"""From a candidate that passed its gates to a signed, registered version; and the record of one that did not."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.core.clock import Clock
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.core.types import Matrix, Principal
from headway.features.kernel import kernel_sha256
from headway.features.profile import Profile
from headway.governance.contract import LoadedContract
from headway.governance.registered_version import RegisteredVersion
from headway.governance.registry import Registry
from headway.governance.signing import Envelope, Signer
from headway.governance.statement import ModelStatement, sign_version
from headway.models.artefact import write_artefact
from headway.models.compute import profile_compute, write_compute
from headway.models.input_schema import InputSchema
from headway.models.parity import BackendReport
from headway.models.probe import probe
from headway.training.definitions import TrainingJob
from headway.training.evaluate import Measure
from headway.training.fitted import Fitted
from headway.training.gates.document import write_report
from headway.training.gates.results import GateReport
from headway.training.origin import describe_job, describe_recipe, git_sha, lock_sha256, machine

VALID_FOR = 365 * DAY
"""A version must be trained anew within a year."""
PARITY_ROWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A fitted and measured model."""

    job: TrainingJob
    as_of: int
    """UTC microseconds."""
    fitted: Fitted
    sample: Matrix
    """Evaluation rows, from which parity and warm-up rows are drawn."""
    schema: InputSchema
    profile: Profile
    measures: Mapping[str, Measure]
    gates: GateReport
    evidence: Envelope
    """The signed report of the gates."""
    snapshots: Mapping[str, int]
    rows: int
    """Training rows."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What a reproduction needs besides the job: the data set's hash, the world size, the code's hash."""

    def values(self) -> dict[str, float]:
        """Return metric → value, for the run."""
        return {name: measure.value for name, measure in self.measures.items()}


def write_candidate(candidate: Candidate, folder: Path, clock: Clock) -> tuple[tuple[BackendReport, ...], int]:
    """Write the artefact; return the back ends' reports, the chosen one first, and its peak memory in bytes.

    Both are in `backends.json` too.
    """
    step = np.linspace(0, len(candidate.sample) - 1, num=min(PARITY_ROWS, len(candidate.sample))).astype(np.int64)
    reports = write_artefact(
        folder,
        models=candidate.fitted.models(),
        profile=candidate.profile,
        input_schema=candidate.schema,
        sample=candidate.sample[step],
        definition=describe_job(candidate.job, candidate.as_of)
        | {"origin": {**candidate.origin, "rows": candidate.rows}},
        clock=clock,
    )
    write_report(candidate.evidence, folder)
    memory = probe(folder, reports[0].name)
    write_compute(folder, profile_compute(reports, memory))
    return reports, memory


def sign_candidate(
    candidate: Candidate,
    folder: Path,
    *,
    version: str,
    run_id: str,
    backend: str,
    memory: int,
    settings: Settings,
    contract: LoadedContract,
    signer: Signer,
    clock: Clock,
    requested_by: str = "",
) -> ModelStatement:
    """Sign the folder as `version`; return the statement."""
    now = clock.now()
    fields: dict[str, Any] = {
        "name": candidate.job.use_case,
        "version": version,
        "created": now,
        "expires": now + VALID_FOR,
        "run_id": run_id,
        "git_sha": git_sha(settings.project),
        "lock_sha256": lock_sha256(settings.project),
        "contract_sha256": contract.sha256,
        "kernel_sha256": kernel_sha256(candidate.job.service),
        "snapshots": dict(candidate.snapshots),
        "feature_service": candidate.job.service.name,
        "metrics": {
            name: {"value": measure.value, "low": measure.low, "high": measure.high}
            for name, measure in candidate.measures.items()
        },
        "gates": msgspec.to_builtins(candidate.gates.results),
        "gate_report_sha256": candidate.evidence.payload_sha256,
        "reference_profile_sha256": candidate.profile.sha256(),
        "input_schema": {
            column.name: {
                "type": column.dtype, "minimum": column.minimum, "maximum": column.maximum,
                "categories": column.categories, "nulls": column.nulls,
            }
            for column in (*candidate.schema.features, *candidate.schema.request)
        },
        "hardware": {"profile": machine(), "tier": contract.contract.tier, "minimum_memory_bytes": memory},
        "backend": backend,
        "requested_by": requested_by,
    }  # fmt: skip
    envelope = sign_version(folder, fields, signer)
    return msgspec.json.decode(envelope.payload_bytes(), type=ModelStatement)


def register_candidate(
    candidate: Candidate,
    folder: Path,
    statement: ModelStatement,
    reports: tuple[BackendReport, ...],
    *,
    registry: Registry,
    principal: Principal,
) -> RegisteredVersion:
    """Fill the reserved version and point @challenger at it; may be repeated where it failed half way."""
    name, recipe = candidate.job.use_case, describe_recipe(candidate.job.recipe)
    params: dict[str, object] = {
        **recipe.pop("params", {}), **recipe, "seed": candidate.job.seed, "rows": candidate.rows,
        "as_of": candidate.as_of, "backend": statement.backend,
        **{f"snapshot.{table}": snapshot for table, snapshot in candidate.snapshots.items()},
    }  # fmt: skip
    timings = {f"{r.name}_us_at_{size}": value for r in reports for size, value in r.microseconds.items()}
    timings |= {f"{r.name}_difference": r.difference for r in reports if np.isfinite(r.difference)}
    compute = profile_compute(reports, statement.hardware.minimum_memory_bytes)
    registered = registry.finish(
        name,
        statement.version,
        folder,
        metrics=candidate.values() | timings | {"row_ms": compute.row_ms, "memory_bytes": compute.memory_bytes},
        params=params,
        tags={
            "headway.feature_service": candidate.job.service.name,
            "headway.backend": statement.backend,
            "headway.suggested_tier": compute.tier,
        },
        principal=principal,
    )
    registry.alias(name, "challenger", registered.version, principal)
    return registered


def record_failure(candidate: Candidate, *, registry: Registry, principal: Principal) -> str:
    """Keep the measures and the signed gates of a candidate that failed one as a failed version; return its number."""
    name = candidate.job.use_case
    _, version = registry.reserve(name, principal)
    with tempfile.TemporaryDirectory() as folder:
        evidence = write_report(candidate.evidence, Path(folder))
        registry.abandon(name, version, principal, metrics=candidate.values(), evidence=evidence)
    return version
