"""Loads a routed version: its signature before its bytes are parsed, its features compared, and each act audited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headway.core.clock import Clock
from headway.core.errors import Tampered
from headway.core.routing import VersionRef
from headway.features.definitions import FeatureService
from headway.features.kernel import kernel_sha256
from headway.governance.audit_event import AuditSink
from headway.governance.signing import TrustRoot
from headway.governance.statement import verify_version
from headway.models.artefact import Artefact, load_artefact
from headway.serving.host import Load


def loader(
    use_case: str,
    service: FeatureService,
    trust: Callable[[], TrustRoot],
    audit: AuditSink,
    *,
    purpose: str,
    clock: Clock,
) -> Load:
    """Return what verifies and loads versions of a use case; blocking, raises EvidenceError for what does not hold.

    `trust` is asked at every load, so that a key revoked while the replica serves signs nothing that it loads later.
    """
    refused: list[tuple[VersionRef, str]] = []
    # the last refusal: the host tries again for as long as a version is routed, the audit log has it once

    def record(ref: VersionRef, outcome: str) -> None:
        audit.append(
            actor=f"replica:{use_case}",
            kind="workload",
            action="model.load",
            resource=f"model:{use_case}/{ref.version}",
            purpose=purpose,
            outcome=outcome,
            refs=(ref.statement_sha256,),
        )

    def load(ref: VersionRef) -> Artefact:
        try:
            statement = verify_version(
                Path(ref.path),
                trust(),
                name=use_case,
                version=ref.version,
                clock=clock,
                statement_sha256=ref.statement_sha256,
            )
            if statement.kernel_sha256 != kernel_sha256(service):
                raise Tampered(
                    f"version {ref.version} was trained with other feature code than this replica has",
                    hint="deploy the code it was trained with, or train again",
                )
            artefact = load_artefact(Path(ref.path), statement)
            if artefact.input_schema.names != service.features:
                raise Tampered(f"version {ref.version} expects other features than {service.name} gives")
        except Exception as error:  # whatever keeps a version out is a refusal, and on record
            if refused != [(ref, str(error))]:
                record(ref, "refused")
                refused[:] = [(ref, str(error))]
            raise
        refused.clear()
        record(ref, "ok")
        return artefact

    return load
