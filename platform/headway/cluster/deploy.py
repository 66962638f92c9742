"""Deploys and redeploys a use case: nothing starts without a signed contract and a verified champion.

A redeploy is the same act: Serve starts new replicas beside the old ones (surge), and stops those once the new ones are
healthy. Which version they load is in the routing record, not in the configuration.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.cluster.applications import base_url, run_application
from headway.cluster.compose import Installation
from headway.cluster.drainer import start_drainer
from headway.cluster.history import fill_new
from headway.cluster.outcomes import sources_fed
from headway.cluster.promotion import require_production
from headway.cluster.serve_config import replicas_at_first, serve_config
from headway.cluster.streams import follow
from headway.core import ray_session
from headway.core.errors import EvidenceError, HeadwayError, NotFound
from headway.core.progress import Progress
from headway.core.routing import VersionRef, read_routing
from headway.core.types import Principal
from headway.governance.contract import LoadedContract
from headway.governance.statement import verify_version

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """Where a use case answers, and with which version."""

    use_case: str
    url: str
    version: str
    contract_sha256: str
    replicas: int


def deploy(at: Installation, use_case: str, principal: Principal, progress: Progress) -> Deployed:
    """Roll out the use case's application and wait until every replica serves the champion.

    Raises:
        NotSigned, Tampered: the contract or the champion does not hold, or is not in production where the installation
            requires it; nothing was changed, the refusal is audited.
        NotFound: no champion yet.
        ServiceFailed: the replicas did not become ready in time; the old ones still serve.
        PlatformError: the audit log cannot be written; nothing was changed.
    """
    principal.require("deploy", at.project.require(use_case))
    try:
        with progress.stage("verify") as stage:
            contract, champion = _verified(at, use_case)
            stands = require_production(at, use_case, champion)
            stage.note(f"contract {contract.sha256[:12]}, version {champion.version}; {stands}")
    except EvidenceError:
        _record(at, use_case, principal, "denied")
        raise
    options = deployment_options(contract, at_most=os.cpu_count())
    replicas = replicas_at_first(options)
    refs = (contract.sha256, champion.statement_sha256)
    _record(at, use_case, principal, "intended", *refs)
    try:
        fill_new(at, at.service(use_case).stored, progress=progress)
        follow(at)
        with progress.stage("roll out") as stage:
            ray_session.start_serve(at.settings)
            _run(use_case, options)
            start_drainer(at, use_case)
            stage.note(f"{replicas} replicas")
    except BaseException:
        with suppress(HeadwayError):  # what went wrong with the rollout says more
            _record(at, use_case, principal, "failed", *refs)
        raise
    _retire(at, use_case)
    _record(at, use_case, principal, "done", *refs)
    return Deployed(
        use_case=use_case,
        url=f"{base_url(at)}/{use_case}",
        version=champion.version,
        contract_sha256=contract.sha256,
        replicas=replicas,
    )


def _retire(at: Installation, use_case: str) -> None:
    """Forget versions of the use case's views that no use case defines and no model in service reads any more.

    Only tidiness: where it cannot be told who reads what, everything stays, and the deployment stands.
    """
    try:
        names = {view.name for view in at.service(use_case).stored}
        keep = [view for other in at.project.use_cases() for view in at.views(other, strict=True)]
        at.online.retire(names, keep)
    except HeadwayError as error:
        _LOG.warning("old versions of the views of %s stay: %s", use_case, error)


def _verified(at: Installation, use_case: str) -> tuple[LoadedContract, VersionRef]:
    """Return the signed contract and the champion whose files are as signed; sources that outcomes feed must fit."""
    contract = at.contract(use_case)
    sources_fed(at, use_case)
    champion = read_routing(at.control, use_case).champion
    if champion is None:
        raise NotFound("champion of use case", use_case, known=[])
    verify_version(
        Path(champion.path),
        at.trust,
        name=use_case,
        version=champion.version,
        clock=at.clock,
        statement_sha256=champion.statement_sha256,
    )
    return contract, champion


def _record(at: Installation, use_case: str, principal: Principal, outcome: str, *refs: str) -> None:
    at.audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action="deploy",
        resource=use_case,
        purpose=principal.purpose,
        outcome=outcome,
        refs=refs,
    )


def deployment_options(contract: LoadedContract, *, at_most: int | None = None) -> dict[str, Any]:
    """Return the options of the one deployment, as the Serve configuration states them.

    `at_most`: replicas that this machine can hold; one loop works one core.
    """
    config = serve_config(contract.contract.name, contract=contract.contract, at_most=at_most)
    (application,) = config["applications"]
    (deployment,) = application["deployments"]
    return {name: value for name, value in deployment.items() if name != "name"}


def _run(use_case: str, options: dict[str, Any]) -> None:
    from headway.serving import application

    run_application(use_case, application(use_case, **options), f"/{use_case}")
