"""The champion in this process: verified before it is parsed, warmed up with asserted outputs, swapped while serving.

The routing record in the control store says who serves; it is read every half second. A version that does not verify
or does not warm up changes nothing: the one that serves goes on, and readiness tells why the new one is not there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.counts import CountsChannel, CountsDelta
from headway.core.errors import HeadwayError
from headway.core.routing import Routing, VersionRef, read_routing
from headway.core.types import Int64, Matrix
from headway.features.profile import Counter
from headway.models.artefact import Artefact

_LOG = logging.getLogger(__name__)
POLL_S = 0.5
Load = Callable[[VersionRef], Artefact]
"""Verify and load a version; blocking."""


class LoadedModel:
    """A version that serves, and what it has counted since the last publication."""

    def __init__(self, ref: VersionRef, artefact: Artefact) -> None:
        self.ref = ref
        self.artefact = artefact
        self._backend = artefact.backend
        self._counter = Counter(artefact.profile)
        self._times: list[Int64] = []

    @property
    def version(self) -> str:
        """Registered version."""
        return self.ref.version

    def predict(self, matrix: Matrix) -> Matrix:
        """Return one float32 score per row."""
        return self._backend.predict(matrix)

    def count(self, matrix: Matrix, scores: Matrix, at: Int64) -> None:
        """Add served rows to the counts; the arrays are kept for a moment and must not change."""
        self._counter.add(matrix, scores)
        self._times.append(at)

    def drain(self, use_case: str, replica: str, sequence: int) -> CountsDelta | None:
        """Return and reset what was counted, None if nothing was; call it on the thread that counts."""
        if not self._times:
            return None
        at = np.concatenate(self._times)
        self._times = []
        return CountsDelta(
            use_case=use_case,
            version=self.ref.version,
            profile_sha256=self.artefact.statement.reference_profile_sha256,
            replica=replica,
            sequence=sequence,
            first_time=int(at.min()),
            last_time=int(at.max()),
            rows=len(at),
            counts=np.ascontiguousarray(self._counter.drain(), dtype="<i8").tobytes(),
        )


@dataclass(frozen=True, kw_only=True)
class HostState:
    """What readiness shows."""

    generation: int
    champion: str | None
    previous: str | None
    error: str | None
    """Why the newest routed version is not the one that serves."""


class ModelHost:
    """Follows the routing record of one use case."""

    def __init__(
        self,
        use_case: str,
        *,
        store: ControlStore,
        load: Load,
        channel: CountsChannel,
        replica: str,
        clock: Clock,
        keep_previous: bool = False,
    ) -> None:
        self._use_case = use_case
        self._store = store
        self._load = load
        self._channel = channel
        self._replica = replica
        self._clock = clock
        self._keep_previous = keep_previous
        self._champion: LoadedModel | None = None
        self._previous: LoadedModel | None = None
        self._steps: tuple[tuple[str, LoadedModel], ...] = ()
        self._retired: list[LoadedModel] = []
        self._generation = -1
        self._error: str | None = None
        self._sequence = 0
        self._unpublished: list[CountsDelta] = []

    @property
    def ready(self) -> bool:
        """Whether a champion serves."""
        return self._champion is not None

    @property
    def state(self) -> HostState:
        """What serves, and what went wrong last."""
        return HostState(
            generation=self._generation,
            champion=self._champion.version if self._champion else None,
            previous=self._previous.version if self._previous else None,
            error=self._error,
        )

    def steps(self) -> Sequence[tuple[str, LoadedModel]]:
        """Return (arm, model) from the champion down."""
        return self._steps

    def start(self) -> None:
        """Load the routed champion now; raises what verification or warm-up raise. Blocking."""
        routing = read_routing(self._store, self._use_case)
        if routing.champion is not None:
            self._install(routing, self._prepare(routing))
        else:
            self._generation = routing.generation

    async def poll(self) -> bool:
        """Look at the record once and swap if it changed; return whether it did."""
        loop = asyncio.get_running_loop()
        try:
            routing = await loop.run_in_executor(None, read_routing, self._store, self._use_case)
            if routing.generation == self._generation or routing.champion is None:
                return False
            models = await loop.run_in_executor(None, self._prepare, routing)
        except HeadwayError as error:
            if self._error != str(error):
                _LOG.error("%s keeps its version: %s", self._use_case, error)
            self._error = str(error)
            return False
        self._install(routing, models)
        return True

    async def follow(self) -> None:
        """Poll for ever."""
        while True:
            try:
                await self.poll()
            except Exception as error:  # a watcher that dies would leave the replica on an old version unnoticed
                _LOG.error("watching the routing of %s failed: %s", self._use_case, error)
                self._error = f"watching failed: {type(error).__name__}"
            await asyncio.sleep(POLL_S)

    async def publish(self) -> None:
        """Publish what was counted since the last time; unsent deltas are kept and sent first."""
        for model in [*self._retired, *(model for _, model in self._steps)]:
            delta = model.drain(self._use_case, self._replica, self._sequence)
            if delta is not None:
                self._sequence += 1
                self._unpublished.append(delta)
        self._retired.clear()
        pending, self._unpublished = self._unpublished, []
        try:
            while pending:
                await asyncio.get_running_loop().run_in_executor(None, self._channel.publish, pending[0])
                pending.pop(0)
        finally:
            self._unpublished = pending + self._unpublished

    async def publish_forever(self, every_s: float = 1.0) -> None:
        """Publish every second."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.publish()
            except Exception as error:  # the channel may be down for a while: the deltas are kept
                _LOG.warning("counts of %s wait: %s", self._use_case, type(error).__name__)

    def _prepare(self, routing: Routing) -> tuple[LoadedModel, LoadedModel | None]:
        assert routing.champion is not None
        champion = self._loaded(routing.champion)
        previous = None
        if self._keep_previous and routing.previous is not None:
            try:
                previous = self._loaded(routing.previous)
            except HeadwayError as error:
                _LOG.warning("the previous version of %s cannot stand by: %s", self._use_case, error)
        return champion, previous

    def _loaded(self, ref: VersionRef) -> LoadedModel:
        for model in (self._champion, self._previous):
            if model is not None and model.ref == ref:
                return model
        return LoadedModel(ref, self._load(ref))

    def _install(self, routing: Routing, models: tuple[LoadedModel, LoadedModel | None]) -> None:
        old = {id(model): model for _, model in self._steps}
        self._champion, self._previous = models
        steps: list[tuple[str, LoadedModel]] = [("champion", models[0])]
        if models[1] is not None:
            steps.append(("previous", models[1]))
        self._steps = tuple(steps)
        for _, model in steps:
            old.pop(id(model), None)
        self._retired.extend(old.values())
        self._generation = routing.generation
        self._error = None
        _LOG.info("%s serves version %s (generation %d)", self._use_case, models[0].version, routing.generation)
