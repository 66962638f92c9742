"""What people ask about registered versions: where each stands, whether it is as signed, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from headway.cluster.compose import Installation
from headway.cluster.promotion import promotions, version_of
from headway.core.errors import EvidenceError
from headway.core.times import format_time
from headway.core.types import Principal
from headway.governance.promotion import Standing
from headway.governance.promotions import Promotable
from headway.governance.registered_version import RegisteredVersion
from headway.governance.statement import read_statement, verify_version


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One line of `headway models list`."""

    version: str
    state: str
    """reserved | ready | failed."""
    stage: str
    """staging | proposed | production, by signed documents; by the registry's tag where the files are not here."""
    signature: str
    """valid | refused: why | not here | none."""
    aliases: tuple[str, ...]
    lineage: dict[str, str]
    run_id: str

    @property
    def made_from(self) -> str:
        """Feature service and the beginnings of the hashes that it is bound to."""
        if not self.lineage:
            return ""
        named = [self.lineage.get("feature_service", "")]
        named += [f"{what} {self.lineage.get(f'{what}_sha256', '')[:8]}" for what in ("contract", "kernel")]
        tables = sum(key.startswith("snapshot.") for key in self.lineage)
        return ", ".join([*named, f"{tables} snapshots"])


def summaries(at: Installation, use_case: str, principal: Principal) -> list[Summary]:
    """Return every version, newest first; files are verified where they are on this machine, not fetched."""
    return [_summary(at, use_case, found) for found in at.registry.versions(at.project.require(use_case), principal)]


def details(at: Installation, use_case: str, version: str, principal: Principal) -> dict[str, Any]:
    """Return everything that the signed documents say about one version; Tampered where they do not hold."""
    found = version_of(at, use_case, version, principal)
    statement, standing = found.statement, found.standing
    return {
        "use_case": use_case,
        "version": statement.version,
        "stage": _stage(at, standing),
        "aliases": ", ".join(found.registered.aliases),
        "created": format_time(statement.created),
        "expires": format_time(statement.expires),
        "signature": {
            "statement_sha256": found.subject.statement_sha256,
            "key": read_statement(found.registered.path).signatures[0].keyid,
            "files": len(statement.files),
        },
        "lineage": {
            "run_id": statement.run_id,
            "requested_by": statement.requested_by,
            "feature_service": statement.feature_service,
            "contract_sha256": statement.contract_sha256,
            "kernel_sha256": statement.kernel_sha256,
            "git_sha": statement.git_sha,
            "lock_sha256": statement.lock_sha256,
            "reference_profile_sha256": statement.reference_profile_sha256,
            **{f"snapshot of {table}": snapshot for table, snapshot in sorted(statement.snapshots.items())},
        },
        "metrics": {name: msgspec.to_builtins(value) for name, value in sorted(statement.metrics.items())},
        "gates": {f"{gate.metric} ({gate.source})": "holds" if gate.passed else "fails" for gate in statement.gates},
        "promotion": _promotion(standing),
    }


def _summary(at: Installation, use_case: str, found: RegisteredVersion) -> Summary:
    stage, signature = found.environment, "none"
    if found.state == "ready":
        signature = "not here"
        if found.path.exists():
            try:
                statement = verify_version(found.path, at.trust, name=use_case, version=found.version, clock=at.clock)
                subject = Promotable(
                    name=use_case,
                    version=found.version,
                    statement_sha256=read_statement(found.path).payload_sha256,
                    requested_by=statement.requested_by,
                )
                signature, stage = "valid", _stage(at, promotions(at).standing(subject))
            except EvidenceError as error:
                signature, stage = f"refused: {error.message}", "none"
    return Summary(
        version=found.version,
        state=found.state,
        stage=stage,
        signature=signature,
        aliases=found.aliases,
        lineage=dict(found.lineage),
        run_id=found.run_id,
    )


def _stage(at: Installation, standing: Standing) -> str:
    return "proposed" if standing.open(at.clock.now()) else standing.environment


def _promotion(standing: Standing) -> dict[str, str]:
    said: dict[str, str] = {}
    if standing.proposal is not None:
        said["proposed"] = f"{standing.proposal.proposed_by}, {format_time(standing.proposal.proposed_at)}"
        said["to be approved before"] = format_time(standing.proposal.expires)
        said["proposal_sha256"] = standing.proposal_sha256
    if standing.decision is not None:
        reason = f": {standing.decision.reason}" if standing.decision.reason else ""
        when = format_time(standing.decision.decided_at)
        said[standing.decision.verdict] = f"{standing.decision.decided_by}, {when}{reason}"
    return said
