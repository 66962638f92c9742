"""Puts one use case's replica together from contract, definitions and settings; the only place that knows every part.

It needs no Ray, so tests and tools run the same service in their own process. Nothing starts without a contract that
every role signed; a routed model that does not verify keeps the replica from starting.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from headway.core.clock import Clock, SystemClock
from headway.core.errors import DefinitionError, ServiceFailed
from headway.core.project import Project
from headway.core.settings import Settings
from headway.core.telemetry.otlp import OtlpSettings
from headway.features.definitions import FeatureService
from headway.features.named import service_named
from headway.governance.audit import audit_log
from headway.governance.keys import trust_root
from headway.governance.signoff import require_signed
from headway.models.explain import open_explainer
from headway.serving.admission import Admission
from headway.serving.batching import MAX_BATCH_ROWS, Batcher
from headway.serving.breaker import Breaker
from headway.serving.decision_ids import DecisionIds, load_key
from headway.serving.drivers import Drivers, open_drivers
from headway.serving.explaining import Explaining
from headway.serving.fallback import Rules
from headway.serving.gateway import Gateway
from headway.serving.gauges import show
from headway.serving.grpc.servicer import InferenceServicer
from headway.serving.host import ModelHost
from headway.serving.input_check import InputCheck
from headway.serving.load import LoadMeter
from headway.serving.loading import loader
from headway.serving.meter import Meter, MeteredRecorder
from headway.serving.objectives import Objectives
from headway.serving.outcomes import Outcomes, outcomes_folder
from headway.serving.readiness import FeatureWatch, Readiness
from headway.serving.reasons import Wording
from headway.serving.recomputing import Recomputer
from headway.serving.recorder import DecisionRecorder, decisions_folder
from headway.serving.schema import DecisionSchema
from headway.serving.scoring import Scorer
from headway.serving.service import DecisionService
from headway.serving.sharing import Sharing
from headway.serving.telemetry import Sink, Telemetry
from headway.serving.terms import PREVIOUS, RECOMPUTE, RULES, Terms, require_agreement
from headway.serving.tracing import Tracer
from headway.serving.work import Answer, Call

_LOG = logging.getLogger(__name__)
_WITHIN = 0.8
"""Part of the latency clause that a recomputation may take."""


class Assembly:
    """One replica's parts, started and stopped together."""

    def __init__(
        self,
        use_case: str,
        *,
        home: Path,
        service: FeatureService,
        terms: Terms,
        rules: Rules | None,
        drivers: Drivers,
        replica: str,
        objectives: Objectives,
        tracer: Tracer | None = None,
        sink: Sink | None = None,
        max_batch_rows: int = MAX_BATCH_ROWS,
    ) -> None:
        clock = drivers.clock
        if RULES in terms.ladder and rules is None:
            raise DefinitionError(
                "the contract falls back to rules and there are none",
                file=f"serve_apps/{use_case}/rules.py",
                expected="one Rules object",
            )
        meter = Meter()
        self.use_case = use_case
        self.tracer = tracer
        self._drivers = drivers
        ids = DecisionIds(load_key(home / "keys" / "decision-ids.key"), use_case)
        self.recorder = DecisionRecorder(
            service, decisions_folder(home, use_case), replica, durable=terms.durable, clock=clock
        )
        self.outcomes = Outcomes(
            use_case,
            ids=ids,
            store=drivers.store,
            names=terms.names,
            folder=outcomes_folder(home, use_case),
            writer=replica,
            clock=clock,
        )
        self.host = ModelHost(
            use_case,
            store=drivers.store,
            load=drivers.load,
            channel=drivers.channel,
            replica=replica,
            clock=clock,
            keep_previous=PREVIOUS in terms.ladder,
        )
        self.recomputer: Recomputer | None = None
        if any(clause.on_stale == RECOMPUTE for clause in terms.freshness):
            if drivers.lake is None:
                raise ServiceFailed(f"{use_case} recomputes stale features and no lake is given")
            self.recomputer = Recomputer(drivers.lake, clock, within_s=terms.admission.deadline_s * _WITHIN)
        self.scorer = Scorer(
            service=service,
            terms=terms,
            reader=drivers.reader,
            recomputer=self.recomputer,
            ladder=self.host.steps,
            rules=rules,
            recorder=MeteredRecorder(self.recorder, meter),
            ids=ids,
            clock=clock,
            meter=meter,
            unseen=InputCheck(service, self.host.steps),
        )
        self.batcher: Batcher[Call, Answer] = Batcher(self.scorer, max_rows=max_batch_rows, clock=clock)
        self._features = FeatureWatch(
            drivers.reader, DecisionSchema.of(service), clock, required=lambda: self.scorer.needs_features
        )
        self.explaining: Explaining | None = None
        if drivers.audit is not None:
            self.explaining = Explaining(
                use_case,
                open_explainer=lambda model: open_explainer(Path(model.ref.path), model.artefact),
                steps=self.host.steps,
                wording=Wording.of(service),
                audit=drivers.audit,
                clock=clock,
            )
        admission = Admission(terms.admission, clock)
        self.sharing: Sharing | None = None
        if drivers.meeting is not None:
            self.sharing = Sharing(use_case, drivers.meeting, admission, clock, patience_s=terms.patience_s)
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="outcomes")
        schema = DecisionSchema.of(service)
        self.service = DecisionService(
            use_case,
            schema=schema,
            terms=terms,
            verifier=drivers.verifier,
            batcher=self.batcher,
            outcomes=self.outcomes,
            host=self.host,
            room=self.recorder.spool.require_room,
            clock=clock,
            executor=self._executor,
            meter=meter,
            tracer=tracer,
            readiness=Readiness(
                {
                    "model": lambda: None if self.host.ready else "no version serves",
                    "background": self._stopped,
                    "decision_log": self.recorder.spool.problem,
                    "features": self._features.problem,
                }
            ),
            admission=admission,
            answers=self.sharing.answers if self.sharing else None,
            breakers=self.breakers,
            explaining=self.explaining,
        )
        self.telemetry = Telemetry(
            use_case,
            meter=meter,
            objectives=objectives,
            version=lambda: self.host.state.champion,
            shed=lambda: self.service.admission.shed_above,
            look=partial(show, self),
            outside=self.host.outside,
            clock=clock,
            sink=sink,
        )
        self.load = LoadMeter(self.batcher, clock)
        self.gateway = Gateway(self.service, on_start=self.start, on_stop=self.stop)
        self.inference = InferenceServicer(use_case, schema, self.service)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Look at the online store, then follow the routing record, publish counts and collect metrics."""
        if not self._tasks:
            await self._features.look()
            works = [self.host.follow, self.host.publish_forever, self._features.follow, self.telemetry.follow]
            if self.sharing is not None:
                works.append(self.sharing.run)
            self._tasks = [asyncio.create_task(work()) for work in works]

    def breakers(self) -> list[Breaker]:
        """Return the breakers of this replica, for metrics and readiness."""
        lake = [self.recomputer.breaker] if self.recomputer else []
        return [*self.scorer.breakers(), *lake, *(self.sharing.breakers() if self.sharing else [])]

    @property
    def ready(self) -> bool:
        """Whether a decision could be answered now within the contract."""
        return self.service.readiness.ready

    def require_alive(self) -> None:
        """Raise ServiceFailed if a background task or the thread of a log has ended."""
        if not (self.recorder.spool.alive and self.outcomes.alive):
            raise ServiceFailed("the thread of a log ended", hint="see the replica's log")
        for task in self._tasks:
            if task.done():
                raise ServiceFailed("a background task of the replica ended", hint="see the replica's log")

    def _stopped(self) -> str | None:
        """Say what background work does not run."""
        if not self._tasks:
            return "not started"
        return "a background task ended" if any(task.done() for task in self._tasks) else None

    async def stop(self) -> None:
        """Finish what was accepted, publish the last counts, write the logs."""
        await self.batcher.idle()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self.sharing is not None:
            await self.sharing.leave()
        try:
            await self.host.publish()
        except Exception as error:  # the channel may be gone already; the decision log still holds the rows
            _LOG.warning("the last counts were not published: %s", type(error).__name__)
        await self._drivers.leave()
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def close(self) -> None:
        """Write what is left in the spools, and close the drivers."""
        self.recorder.close()
        self.outcomes.close()
        self._executor.shutdown(wait=False)
        if self.explaining is not None:
            self.explaining.close()
        if self.tracer is not None:
            self.tracer.close()
        if self.recomputer is not None:
            self.recomputer.close()
        self._drivers.close()


def assemble(
    use_case: str,
    settings: Settings,
    *,
    replica: str,
    clock: Clock | None = None,
    sink: Sink | None = None,
    max_batch_rows: int = MAX_BATCH_ROWS,
) -> Assembly:
    """Return a ready replica of a use case; raises whatever keeps it from serving. Blocking."""
    clock = clock or SystemClock()
    project = Project(settings.project)
    path = project.app_folder(use_case) / "contract.yaml"
    trust = trust_root(settings)
    contract = require_signed(path, trust, name=use_case).contract
    name = contract.decision.feature_service
    service = service_named(project, name, field=f"{use_case}.decision.feature_service")
    require_agreement(contract, service, file=path.name)
    terms = Terms.of(contract)
    rules = project.one(f"serve_apps.{use_case}", "rules", Rules) if RULES in terms.ladder else None
    audit = audit_log(settings, f"serving-{use_case}", clock)
    collector = OtlpSettings.of(os.environ, **{"service.instance.id": replica})
    drivers = open_drivers(
        use_case,
        settings,
        service,
        terms,
        replica=replica,
        load=loader(use_case, service, lambda: trust_root(settings), audit, purpose=terms.purposes[0], clock=clock),
        audit=audit,
        clock=clock,
    )
    with ExitStack() as opening:
        opening.callback(drivers.close)
        assembly = Assembly(
            use_case,
            home=settings.home,
            service=service,
            terms=terms,
            rules=rules,
            drivers=drivers,
            replica=replica,
            objectives=Objectives.of(contract),
            tracer=None if collector is None else Tracer(use_case, collector, clock),
            sink=sink,
            max_batch_rows=max_batch_rows,
        )
        opening.callback(assembly.close)
        assembly.host.start()
        opening.pop_all()
    return assembly
