"""The composition root: the one place where settings become concrete parts and the parts meet.

Everything below takes its collaborators as arguments; only this module and the acts beside it (`training`, `deploy`,
`score`, `loop`) choose them.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.cluster.local.tokens import person_scopes, request_token
from headway.core import ray_session
from headway.core.clock import Clock, SystemClock
from headway.core.control import ControlStore, RedisControlStore
from headway.core.errors import HeadwayError, ServiceFailed
from headway.core.platform_state import running_settings
from headway.core.project import Project
from headway.core.routing import VersionRef, read_routing
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.definitions import EventSource, FeatureService, View, WindowView
from headway.features.evolution import versions
from headway.features.history import History, history_of
from headway.governance.audit import AuditLog, audit_log
from headway.governance.contract import LoadedContract
from headway.governance.identity import TokenVerifier, verifier_from
from headway.governance.keys import contract_role, development_keys, trust_root
from headway.governance.login import current_principal, store_token
from headway.governance.signing import TrustRoot
from headway.governance.signoff import require_signed
from headway.governance.statement import verify_version
from headway.models.artefact import read_definition
from headway.training.definitions import TrainingJob

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from headway.features.lake.committer_actor import CommitterClient
    from headway.features.lake.reader import LakeReader
    from headway.features.online_store import OnlineStore
    from headway.features.quality.gate import Gate
    from headway.features.streams.port import EventStream
    from headway.governance.registry import Registry

_LOG = logging.getLogger(__name__)
CONTRACT = "contract.yaml"


class Installation:
    """A running platform and a project's definitions; each part is made once, when it is first asked for."""

    def __init__(self, settings: Settings, *, writer: str, clock: Clock | None = None) -> None:
        self.settings = settings
        self.writer = writer
        self.clock: Clock = clock or SystemClock()
        self.project = Project(settings.project)
        self._described: dict[VersionRef, list[dict[str, Any]]] = {}

    @classmethod
    def running(cls, *, writer: str, **flags: object) -> Installation:
        """Return the installation of a started platform; ServiceFailed says to start it."""
        return cls(running_settings(**flags), writer=writer)

    @cached_property
    def audit(self) -> AuditLog:
        """This writer's audit chain."""
        return audit_log(self.settings, self.writer, self.clock)

    @cached_property
    def control(self) -> ControlStore:
        """Routing, loop and monitor state."""
        return RedisControlStore(self.settings.redis_control_url)

    @cached_property
    def online(self) -> OnlineStore:
        """The online features."""
        from headway.features.online_store import OnlineStore

        return OnlineStore(self.settings.redis_features_url, history=self.lake_rows)

    def lake_rows(self, view: WindowView, keys: npt.NDArray[np.generic]) -> pa.Table:
        """Return what the lake has of keys whose late events the online store cannot place."""
        from headway.features.recompute import rows_of

        worker = self.workload("headway-materialize", ["data:read"], "model_training")
        return rows_of(view, keys, self.reader, worker)

    @cached_property
    def stream(self) -> EventStream:
        """The topics; ServiceFailed where no server is known."""
        from headway.features.streams.drivers import open_stream

        if not self.settings.stream_url:
            raise ServiceFailed("no server of streams is known: stream_url is empty", hint="set it, or headway up")
        return open_stream(self.settings.stream_url)

    @cached_property
    def reader(self) -> LakeReader:
        """Governed reads of the lake."""
        from headway.features.lake.reader import LakeReader

        return LakeReader(self.settings, self.audit, self.clock)

    @cached_property
    def committer(self) -> CommitterClient:
        """The lake's only writer."""
        from headway.features.lake.committer_actor import committer

        ray_session.connect(self.settings)
        return committer(self.settings)

    @cached_property
    def quality(self) -> Gate:
        """Quarantine and profiles of what is ingested."""
        from headway.features.quality.gate import Gate
        from headway.features.quality.profiles import Profiles
        from headway.features.quality.quarantine import Quarantine, quarantine_folder

        held = Quarantine(quarantine_folder(self.settings), self.clock)
        return Gate(quarantine=held, profiles=Profiles(self.control))

    @cached_property
    def registry(self) -> Registry:
        """Runs, versions and aliases."""
        from headway.cluster.tokens import RegistryTokens
        from headway.governance.registry import registry_from

        # other providers issue tokens to programs by their own rules: MLFLOW_TRACKING_TOKEN carries them
        tokens = None if self.settings.oidc_issuers else RegistryTokens(self.settings, self.clock)
        return registry_from(self.settings, self.audit, self.clock, tokens)

    @property
    def trust(self) -> TrustRoot:
        """Keys believed, read anew each time: keys are added while the platform runs."""
        return trust_root(self.settings)

    @cached_property
    def verifier(self) -> TokenVerifier:
        """Verifies tokens."""
        return verifier_from(self.settings, self.clock)

    def person(self) -> Principal:
        """Return who is logged in."""
        return current_principal(self.settings.home, self.verifier)

    def workload(self, sub: str, scopes: list[str], purpose: str) -> Principal:
        """Return a platform workload's own identity, from a token of the issuer."""
        token = request_token(self.settings, sub=sub, kind="workload", scopes=scopes, purpose=purpose)
        return self.verifier.verify(token)

    def login(self, sub: str, purpose: str) -> Principal:
        """Store a short-lived human token of the development issuer and return who it speaks for."""
        token = request_token(
            self.settings, sub=sub, kind="human", scopes=person_scopes(self.settings), purpose=purpose
        )
        store_token(self.settings.home, token)
        return self.verifier.verify(token)

    def contract(self, use_case: str) -> LoadedContract:
        """Return the signed contract; NotSigned and Tampered say what is wrong."""
        return require_signed(self.project.app_folder(use_case) / CONTRACT, self.trust, name=use_case)

    def job(self, use_case: str) -> TrainingJob:
        """Return how the use case's model is trained."""
        return self.project.one("training", self.project.require(use_case), TrainingJob)

    def history(self, use_case: str) -> History:
        """Return the use case's recorded or simulated past."""
        return history_of(self.project, use_case)

    def views(self, use_case: str, *, strict: bool = False) -> tuple[View, ...]:
        """Return the views of the use case, then older versions of them that its models in service still read.

        A version that no longer verifies, because it expired or its folder is gone, must not stop ingestion for the
        others: its views are left out with a warning, or with `strict` its error is raised.
        """
        routing = read_routing(self.control, use_case)
        described: list[dict[str, Any]] = []
        for ref in (routing.champion, routing.previous):
            if ref is None:
                continue
            try:
                described += self._described_views(use_case, ref)
            except HeadwayError as error:
                if strict:
                    raise
                _LOG.warning("views that only %s %s reads are not fed: %s", use_case, ref.version, error)
        sources = {source.name: source for source in self.project.collect("features", EventSource)}
        return versions(self.service(use_case).stored, described, sources)

    def _described_views(self, use_case: str, ref: VersionRef) -> list[dict[str, Any]]:
        if ref not in self._described:
            folder = Path(ref.path)
            statement = verify_version(
                folder,
                self.trust,
                name=use_case,
                version=ref.version,
                clock=self.clock,
                statement_sha256=ref.statement_sha256,
            )
            self._described[ref] = read_definition(folder, statement)["service"]["views"]
        return self._described[ref]

    def service(self, use_case: str) -> FeatureService:
        """Return the feature service of the use case's model."""
        return self.job(use_case).service


def make_development_keys(settings: Settings) -> None:
    """Make the keys that `headway up` promises: model signing, audit anchors, one per sign-off role."""
    from headway.governance.contract import load_contract

    project = Project(settings.project)
    roles = [
        contract_role(role)
        for use_case in project.use_cases()
        for role in load_contract(project.app_folder(use_case) / CONTRACT).contract.signoff
    ]
    development_keys(settings.home, roles)
