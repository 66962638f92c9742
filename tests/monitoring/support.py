"""A small world for the monitor: references over uniform values, deltas of replicas, ports that record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headway.core.clock import ManualClock
from headway.core.control import ControlStore, MemoryControlStore
from headway.core.counts import CountsChannel, CountsDelta, MemoryCountsChannel
from headway.core.errors import HeadwayError
from headway.core.ports import Candidate, RetrainRequest
from headway.core.routing import VersionRef, promote, read_routing
from headway.core.times import DAY, HOUR
from headway.core.types import Int64
from headway.governance.audit_event import AuditSink, MemoryAudit
from headway.monitoring.acts import Ports, Run, in_place
from headway.monitoring.budget import DriftBudget, RetrainPolicy
from headway.monitoring.definitions import Monitor
from headway.monitoring.reference import Bins, Reference
from headway.monitoring.service import MonitorParts, MonitorService

USE_CASE = "fraud"
START = 1_533_686_400_000_000
"""2018-08-08, in microseconds: histories are monitored at their own time."""
BINS = 64
NAMES = ("amount", "card_activity__count_7d", "score")
BUDGET = DriftBudget(false_alarms_per_month=1.0, smallest_effect=0.1)
POLICY = RetrainPolicy(cooldown=24 * HOUR, min_new_labels=100, max_per_week=2)
MONITOR = Monitor(use_case=USE_CASE, window_rows=1_000, cold=("card_activity",))
Floats = npt.NDArray[np.float64]


def layout(names: Sequence[str] = NAMES, bins: int = BINS) -> tuple[Bins, ...]:
    return tuple(
        Bins(name=name, start=index * (bins + 1), stop=index * (bins + 1) + bins, null=index * (bins + 1) + bins)
        for index, name in enumerate(names)
    )


def count(values: Floats, bins: int = BINS) -> Int64:
    """Flat counts of [n, k] values in [0, 1); NaN is null."""
    parts = []
    for column in values.T:
        known = column[~np.isnan(column)]
        histogram = np.bincount(np.minimum((known * bins).astype(int), bins - 1), minlength=bins)
        parts.append(np.append(histogram, column.size - known.size))
    return np.concatenate(parts).astype(np.int64)


def reference(version: str = "1", rows: int = 20_000, seed: int = 1) -> Reference:
    values = np.random.default_rng(seed).random((rows, len(NAMES)))
    return Reference(version=version, profile_sha256="a" * 64, bins=layout(), counts=count(values))


def delta(
    sequence: int,
    rows: int,
    *,
    rng: np.random.Generator,
    shift: float = 0.0,
    version: str = "1",
    replica: str = "r1",
    first_time: int = START,
    profile: str = "a" * 64,
    nulls: float = 0.0,
) -> CountsDelta:
    values = rng.random((rows, len(NAMES)))
    values[:, 0] = shift + values[:, 0] * (1.0 - shift)
    values[rng.random(rows) < nulls, 0] = np.nan
    return CountsDelta(
        use_case=USE_CASE,
        version=version,
        profile_sha256=profile,
        replica=replica,
        sequence=sequence,
        first_time=first_time,
        last_time=first_time + HOUR,
        rows=rows,
        counts=count(values).astype("<i8").tobytes(),
    )


def ref(version: str) -> VersionRef:
    return VersionRef(version=version, path=f"/models/{version}", statement_sha256=version.rjust(64, "0"))


@dataclass
class Acts:
    """Idempotent acts that remember how often they were really carried out."""

    store: ControlStore
    labels: int = 1_000
    trained: dict[str, Candidate] = field(default_factory=dict)
    asked: list[RetrainRequest] = field(default_factory=list)
    redeployed: list[int] = field(default_factory=list)
    fails: list[HeadwayError] = field(default_factory=list)

    def new_labels(self, use_case: str, version: str, as_of: int) -> int:
        return self.labels

    def retrain(self, request: RetrainRequest) -> Candidate:
        self.asked.append(request)
        if self.fails:
            raise self.fails.pop(0)
        version = ref(str(int(request.replaces) + 1))
        return self.trained.setdefault(request.episode, Candidate(version=version, gates=("ap 0.6 >= 0.5",)))

    def promote(self, use_case: str, candidate: Candidate, *, episode: str, reason: str) -> int:
        return promote(self.store, use_case, candidate.version, reason=reason, by=episode, now=0).generation

    def redeploy(self, use_case: str, generation: int, *, episode: str) -> None:
        assert read_routing(self.store, use_case).generation >= generation
        self.redeployed.append(generation)

    def ports(self) -> Ports:
        return Ports(new_labels=self.new_labels, retrain=self.retrain, promote=self.promote, redeploy=self.redeploy)


@dataclass
class World:
    store: ControlStore = field(default_factory=MemoryControlStore)
    channel: CountsChannel = field(default_factory=MemoryCountsChannel)
    clock: ManualClock = field(default_factory=lambda: ManualClock(START + 900 * DAY))
    audit: AuditSink = field(default_factory=MemoryAudit)
    monitor: Monitor = MONITOR
    acts: Acts = field(init=False)

    def __post_init__(self) -> None:
        self.acts = Acts(self.store)
        promote(self.store, USE_CASE, ref("1"), reason="first", by="test", now=0)

    def service(self, holder: str = "h1", run: Run = in_place) -> MonitorService:
        parts = MonitorParts(
            monitor=self.monitor,
            budget=BUDGET,
            policy=POLICY,
            store=self.store,
            channel=self.channel,
            references=lambda champion: reference(champion.version),
            ports=self.acts.ports(),
            audit=self.audit,
            clock=self.clock,
        )
        return MonitorService(parts, holder=holder, run=run)

    @property
    def actions(self) -> list[str]:
        assert isinstance(self.audit, MemoryAudit)
        return [event.action for event in self.audit.events]

    @property
    def outcomes(self) -> list[str]:
        assert isinstance(self.audit, MemoryAudit)
        return [f"{event.action.removeprefix('monitor.')} {event.outcome}" for event in self.audit.events]
