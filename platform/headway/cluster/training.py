"""Trains a use case as its job says, and moves a version that passed its gates into service."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import msgspec

from headway.cluster.compose import Installation
from headway.cluster.promotion import require_production
from headway.cluster.training_acts import trainer
from headway.cluster.training_job import JobRequest, run_job
from headway.core.errors import EvidenceError, HeadwayError
from headway.core.progress import Progress
from headway.core.routing import Routing, VersionRef, promote, read_routing
from headway.core.types import Principal
from headway.training.origin import lock_sha256
from headway.training.pipeline import TrainedVersion
from headway.training.reproduce import Reproduction


def train(
    at: Installation,
    use_case: str,
    principal: Principal,
    progress: Progress,
    *,
    as_of: int | None = None,
    without_champion: str = "",
) -> TrainedVersion:
    """Run the pipeline as a job of its own and return the signed, registered candidate.

    Args:
        at: The platform.
        use_case: What to train.
        principal: Who asks.
        progress: Shows the stages.
        as_of: Train on what was known then, UTC microseconds; None: now, or that of a run which was stopped within
            the last hour.
        without_champion: Why the candidate is not held against the version that serves; the report tells it.

    Raises GateFailed where a gate does not hold; the run is kept with the reason. Conflict names a training of the use
    case that is going on.
    """
    principal.require("train", at.project.require(use_case))
    at.contract(use_case)
    request = _request(at, "train", use_case, principal, as_of=as_of, without_champion=without_champion)
    result = run_job(at, request, progress)
    return msgspec.json.decode(result, type=TrainedVersion)


def reproduce(at: Installation, use_case: str, version: str, principal: Principal, progress: Progress) -> Reproduction:
    """Rebuild a version (number or alias) as a job of its own, and return how it compares with what was signed."""
    principal.require("train", at.project.require(use_case))
    result = run_job(at, _request(at, "reproduce", use_case, principal, version=version), progress)
    return msgspec.json.decode(result, type=Reproduction)


def _request(
    at: Installation,
    act: Literal["train", "reproduce"],
    use_case: str,
    principal: Principal,
    *,
    as_of: int | None = None,
    version: str = "",
    without_champion: str = "",
) -> JobRequest:
    return JobRequest(
        act=act, use_case=use_case, home=str(at.settings.home), project=str(at.settings.project),
        asked_by=principal.sub, lock_sha256=lock_sha256(at.settings.project), as_of=as_of, version=version,
        without_champion=without_champion,
    )  # fmt: skip


def make_champion(at: Installation, use_case: str, ref: VersionRef, principal: Principal, reason: str) -> Routing:
    """Write the routing record, then let the registry's aliases follow it.

    The audit log tells of the promotion before it is made and after, so that nothing is promoted which it cannot hold.
    Raises NotSigned where the installation serves production versions only and this is none.
    """
    principal.require("rollout", use_case)

    def record(outcome: str) -> None:
        at.audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action="rollout.promote",
            resource=f"{use_case}/{ref.version}",
            purpose=principal.purpose,
            outcome=outcome,
            refs=(ref.statement_sha256,),
        )

    try:
        require_production(at, use_case, ref)
    except EvidenceError:
        record("denied")
        raise
    before = read_routing(at.control, use_case)
    worker = trainer(at, use_case)
    record("intended")
    try:
        routing = promote(at.control, use_case, ref, reason=reason, by=principal.sub, now=at.clock.now())
    except BaseException:
        with suppress(HeadwayError):  # why it failed says more
            record("failed")
        raise
    record(f"generation {routing.generation}")
    at.registry.alias(use_case, "champion", ref.version, worker)
    if before.champion is not None and before.champion != ref:
        at.registry.alias(use_case, "previous", before.champion.version, worker)
    return routing
