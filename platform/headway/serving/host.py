"""The champion in this process: verified before it is parsed, warmed up with asserted outputs, swapped while serving.

The routing record in the control store says who serves; it is read every half second. A version that does not verify
or does not warm up changes nothing: the one that serves goes on, and readiness tells why the new one is not there. It
is tried again, ever more rarely: a full machine may recover, but a wrong signature seldom mends itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
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
_LONGEST_RETRY_S = 60.0
_UNNUMBERED = -1
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

    def outside(self, batches: Sequence[Matrix]) -> dict[str, int]:
        """Return feature → values outside the range that was seen in training."""
        features = self.artefact.input_schema.features
        low, high = (
            np.array([np.nan if bound is None else bound for bound in bounds], np.float32)
            for bounds in zip(*((feature.minimum, feature.maximum) for feature in features), strict=True)
        )
        counts = np.zeros(len(features), np.int64)
        for matrix in batches:
            counts += ((matrix < low) | (matrix > high)).sum(axis=0)
        return {features[place].name: int(counts[place]) for place in np.flatnonzero(counts)}

    def drain(self, use_case: str, replica: str) -> CountsDelta | None:
        """Return and reset what was counted, not numbered yet, None if nothing was; on the thread that counts."""
        if not self._times:
            return None
        at = np.concatenate(self._times)
        self._times = []
        return CountsDelta(
            use_case=use_case,
            version=self.ref.version,
            profile_sha256=self.artefact.statement.reference_profile_sha256,
            replica=replica,
            sequence=_UNNUMBERED,
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


@dataclass(frozen=True, kw_only=True)
class _Refused:
    """A generation that could not be installed."""

    generation: int
    error: str
    wait_s: float
    again_at: float
    """Monotonic seconds."""


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
        self._refused: _Refused | None = None
        self._sequence = 0
        self._sending: CountsDelta | None = None
        """The last one numbered. The channel may hold it although publishing failed: it is repeated unchanged."""
        self._waiting: dict[tuple[str, str], CountsDelta] = {}
        """What no channel has seen, one delta per version and profile: bounded however long the channel is away."""

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

    def outside(self, version: str, batches: Sequence[Matrix]) -> dict[str, int]:
        """Return feature → served values outside what a loaded version was trained on; nothing of others."""
        for _, model in self._steps:
            if model.version == version:
                return model.outside(batches)
        return {}

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
        except HeadwayError as error:
            if self._error != str(error):
                _LOG.error("the routing of %s cannot be read: %s", self._use_case, error)
            self._error = str(error)
            return False
        if routing.generation == self._generation or routing.champion is None:
            return False
        refused = self._refused
        if refused is not None and refused.generation == routing.generation:
            self._error = refused.error
            if self._clock.monotonic() < refused.again_at:
                return False
        try:
            models = await loop.run_in_executor(None, self._prepare, routing)
        except Exception as error:
            reason = str(error) if isinstance(error, HeadwayError) else f"loading failed: {type(error).__name__}"
            self._refuse(routing.generation, reason)
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
        """Publish what was counted since the last time; what could not be sent is kept, merged, and sent first.

        A delta gets its number when it is first sent: numbers have no gaps, and one number never has two contents, by
        which the reader knows a repeat (`headway.monitoring.window`).
        """
        for model in [*self._retired, *(model for _, model in self._steps)]:
            delta = model.drain(self._use_case, self._replica)
            if delta is not None:
                key = (delta.version, delta.profile_sha256)
                before = self._waiting.get(key)
                self._waiting[key] = delta if before is None else _merged(before, delta)
        self._retired.clear()
        while self._sending is not None or self._waiting:
            if self._sending is None:
                delta = self._waiting.pop(next(iter(self._waiting)))
                self._sending = msgspec.structs.replace(delta, sequence=self._sequence)
                self._sequence += 1
            await asyncio.get_running_loop().run_in_executor(None, self._channel.publish, self._sending)
            self._sending = None

    async def publish_forever(self, every_s: float = 1.0) -> None:
        """Publish every second."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.publish()
            except Exception as error:  # the channel may be down for a while: the deltas are kept
                _LOG.warning("counts of %s wait: %s", self._use_case, type(error).__name__)

    def _refuse(self, generation: int, error: str) -> None:
        """Double the wait before this generation is tried again; each reason is logged once."""
        before = self._refused if self._refused and self._refused.generation == generation else None
        if before is None or before.error != error:
            _LOG.error("%s keeps its version: generation %d is refused: %s", self._use_case, generation, error)
        wait_s = min(_LONGEST_RETRY_S, 2 * before.wait_s) if before else POLL_S
        again_at = self._clock.monotonic() + wait_s
        self._refused = _Refused(generation=generation, error=error, wait_s=wait_s, again_at=again_at)
        self._error = error

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
        self._error = self._refused = None
        _LOG.info("%s serves version %s (generation %d)", self._use_case, models[0].version, routing.generation)


def _merged(first: CountsDelta, second: CountsDelta) -> CountsDelta:
    """Return what a replica would have counted in both intervals together."""
    return msgspec.structs.replace(
        first,
        first_time=min(first.first_time, second.first_time),
        last_time=max(first.last_time, second.last_time),
        rows=first.rows + second.rows,
        counts=(first.array() + second.array()).astype("<i8").tobytes(),
    )
