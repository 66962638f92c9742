"""A lake in memory, and a process that can be killed at any step of what it does to quarantine, audit and lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.types import Principal
from headway.features.definitions import EventSource
from headway.features.ingest import IngestReport, ingest
from headway.features.lake.tables import TableSpec
from headway.features.quality import quarantine as module
from headway.features.quality.decisions import drop, release
from headway.features.quality.expectations import between, unique
from headway.features.quality.gate import Gate
from headway.features.quality.profiles import Profiles
from headway.features.quality.quarantine import Case, Quarantine
from headway.governance.audit_event import MemoryAudit

SOURCE = EventSource(
    name="sales",
    columns={"id": "int64", "shop": "int64", "price": "float32", "channel": "string"},
    id="id",
    bucket_by="shop",
    expectations=(between("price", 0, 100, tolerance=0.1), unique("id")),
)
NOW = 1_000_000_000_000
PERSON = Principal(
    sub="petra", kind="human", purpose="operations", expires=2**60, scopes=frozenset({"quality:write", "data:read"})
)
SENDER = Principal(
    sub="shop-7", kind="workload", purpose="operations", expires=2**60, scopes=frozenset({"ingest:sales"})
)


def sales(*prices: float | None, first: int = 0) -> pa.Table:
    ids = list(range(first, first + len(prices)))
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "shop": pa.array([1] * len(ids), pa.int64()),
            "price": pa.array(prices, pa.float32()),
            "channel": pa.array(["web" if i % 2 else "shop" for i in ids], pa.string()),
            "event_time": pa.array([NOW - 1_000 - i for i in ids], pa.int64()),
            "known_time": pa.array([NOW - i for i in ids], pa.int64()),
        }
    )


BAD = sales(1.0, 2.0, -5.0, 400.0)
GOOD = sales(1.0, 2.0, 3.0, 4.0)


class Lake:
    """Takes each batch id once, as the committer does."""

    def __init__(self) -> None:
        self.batches: dict[str, pa.Table] = {}
        self.appends = 0

    def append(self, table: EventSource | TableSpec, data: Any, batch_id: str) -> int:
        self.appends += 1
        self.batches.setdefault(batch_id, data)
        return 1 + list(self.batches).index(batch_id)

    @property
    def ids(self) -> list[int]:
        return sorted(i for rows in self.batches.values() for i in rows["id"].to_pylist())


class Holding:
    """An ingester with a quarantine, over one folder."""

    def __init__(self, folder: Path, **bounds: int) -> None:
        self.clock = ManualClock(NOW)
        self.lake, self.audit, self.control = Lake(), MemoryAudit(self.clock), MemoryControlStore()
        self.quarantine = Quarantine(folder / "quarantine", self.clock, **bounds)
        self.profiles = Profiles(self.control)
        self.gate = Gate(quarantine=self.quarantine, profiles=self.profiles)

    def ingest(self, rows: pa.Table, batch: str, gate: Gate | None = None) -> IngestReport:
        return ingest(
            SOURCE, rows, self.lake, None, (), batch, self.clock, principal=SENDER, audit=self.audit,
            quality=gate or self.gate,
        )  # fmt: skip

    def release(self, batch: str, *, principal: Principal = PERSON, keep_known_time: bool = False) -> Case:
        approved = Gate(quarantine=self.quarantine, profiles=self.profiles, approved=True)
        return release(
            self.quarantine.find(batch),
            self.quarantine,
            lambda rows: self.ingest(rows, batch, approved).snapshot_id,
            self.clock,
            principal=principal,
            audit=self.audit,
            reason="as agreed with the shop",
            keep_known_time=keep_known_time,
        )

    def drop(self, batch: str, *, principal: Principal = PERSON) -> Case:
        case = self.quarantine.find(batch)
        return drop(case, self.quarantine, principal=principal, audit=self.audit, reason="a test till")

    @property
    def acts(self) -> list[tuple[str, str]]:
        return [(event.action, event.outcome) for event in self.audit.events]


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, no `finally` either."""


class Steps:
    """Counts the steps that change anything outside, and kills at one of them."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.dead = False

    def step(self) -> None:
        self.dead = self.dead or self.left == 0
        self.left -= 1
        if self.dead:
            raise Killed


@contextmanager
def killed_at(holding: Holding, number: int) -> Iterator[Steps]:
    """Kill what runs within before its step `number` (0: the first)."""
    steps = Steps(number)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (Path, "replace"),
            (Path, "unlink"),
            (pq, "write_table"),
            (module, "_durable"),
            (module, "sync_folder"),
            (holding.lake, "append"),
            (holding.audit, "append"),
            (holding.control, "put"),
        ):
            patch.setattr(owner, name, _counted(getattr(owner, name), steps))
        yield steps


def killed_everywhere(
    folder: Path, begin: Callable[[Path], Holding], act: Callable[[Holding], object]
) -> Iterator[tuple[Holding, bool]]:
    """Act on a new holding, killed before the first step, then before the second, and so on; at last it is not killed.

    Yields each holding, and whether the act came to its end there.
    """
    for number in count():
        holding = begin(folder / str(number))
        with killed_at(holding, number) as steps, suppress(Killed):
            act(holding)
        yield holding, not steps.dead
        if not steps.dead:
            return


def _counted(call: Any, steps: Steps) -> Any:
    def counted(*args: Any, **kwargs: Any) -> Any:
        steps.step()
        return call(*args, **kwargs)

    return counted
