"""Some partitions of a topic in one process: steps them in turn, survives their faults, tells how they are.

As a Ray actor it is named and detached; Ray restarts it after a kill, and it goes on from the checkpoints. Which actor
has a partition is decided by the checkpoint's fence and nothing else, so two of them do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from typing import Any

from headway.core.errors import CapacityError, HeadwayError
from headway.core.ray_session import run_in_background
from headway.features.streams.checkpoint import Fenced
from headway.features.streams.parts import Parts
from headway.features.streams.processor import PartitionProcessor
from headway.features.streams.status import PartitionStatus

_LOG = logging.getLogger(__name__)
NAMESPACE = "headway"
_WAIT_S = 0.1
_PAUSE_S = 0.5
_LOOK_S = 1.0
_LONGEST_PAUSE_S = 10.0

Build = Callable[[], Parts]
"""Makes the parts in the actor's process."""


class PartitionGroup:
    """Steps partitions in a thread until told to stop."""

    def __init__(self, build: Build, partitions: Sequence[int]) -> None:
        """Start at once; what cannot be reached yet is tried again."""
        self._build = build
        self._partitions = tuple(partitions)
        self._lock = Lock()
        self._statuses: dict[int, PartitionStatus] = {}
        self._error = ""
        self._stop = Event()
        self._thread = Thread(target=self._run, name="headway-stream", daemon=True)
        self._thread.start()

    def status(self) -> list[PartitionStatus]:
        """Return how each partition is, as of its last step; none before the first."""
        with self._lock:
            return [self._statuses[partition] for partition in sorted(self._statuses)]

    def error(self) -> str:
        """Return why the group cannot begin; empty once it has."""
        return self._error

    def stop(self) -> None:
        """Bring what is pending to the lake and end."""
        self._stop.set()
        self._thread.join(timeout=60.0)

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                parts = self._build()
            except Exception as error:
                _LOG.warning("the stream waits", exc_info=error)
                self._error = str(error)
                pause = min(max(2 * pause, _PAUSE_S), _LONGEST_PAUSE_S)
                continue
            self._error = ""
            _Turns(parts, self._partitions, self._stop, self._note).run()
            return

    def _note(self, status: PartitionStatus) -> None:
        with self._lock:
            self._statuses[status.progress.partition] = status


class _Turns:
    """Steps the partitions in turn."""

    def __init__(
        self, parts: Parts, partitions: Sequence[int], stop: Event, note: Callable[[PartitionStatus], None]
    ) -> None:
        self._parts, self._stop, self._note = parts, stop, note
        self._processors = {partition: PartitionProcessor(parts, partition) for partition in partitions}
        self._failing: dict[int, int] = {}
        self._again: dict[int, float] = {}
        self._ends: dict[int, int] = {}
        self._looked: dict[int, float] = {}

    def run(self) -> None:
        idle = False
        while not self._stop.is_set() and self._processors:
            wait = _WAIT_S / len(self._processors) if idle else 0.0
            done = [self._step(processor, wait) for processor in list(self._processors.values())]
            idle = not any(done)
        for processor in self._processors.values():
            try:
                processor.flush()
            except HeadwayError as error:
                _LOG.warning("partition %d is left to its successor: %s", processor.partition, error)
            processor.close()

    def _step(self, processor: PartitionProcessor, wait_s: float) -> bool:
        """Step one partition and note how it is; return whether there was something to do."""
        partition, clock = processor.partition, self._parts.clock
        if clock.monotonic() < self._again.get(partition, 0.0):
            self._stop.wait(wait_s)
            return False
        try:
            done = processor.step(wait_s)
            self._look(processor)
        except Fenced as error:
            self._note(PartitionStatus(progress=processor.progress, end=-1, state="fenced", error=str(error)))
            del self._processors[partition]
            processor.close()
            return False
        except Exception as error:  # whatever it is: what is in memory is dropped, and the checkpoint is good
            since = self._failing.setdefault(partition, clock.now())
            failing_s = (clock.now() - since) / 1e6
            self._again[partition] = clock.monotonic() + min(max(failing_s, _PAUSE_S), _LONGEST_PAUSE_S)
            _LOG.warning("partition %d waits: %s", partition, error, exc_info=not isinstance(error, CapacityError))
            self._note(
                PartitionStatus(
                    progress=processor.progress, end=-1, state="waiting", error=str(error), failing_since=since
                )
            )
            return False
        self._failing.pop(partition, None)
        end = self._ends[partition]
        self._note(PartitionStatus(progress=processor.progress, end=end, state="running"))
        return done > 0

    def _look(self, processor: PartitionProcessor) -> None:
        """Ask where the stream ends, now and then."""
        now = self._parts.clock.monotonic()
        if now >= self._looked.get(processor.partition, 0.0):
            self._ends[processor.partition] = processor.end()
            self._looked[processor.partition] = now + _LOOK_S


class _Actor(PartitionGroup):
    def __init__(self, build: Build, partitions: Sequence[int]) -> None:
        run_in_background()
        super().__init__(build, partitions)


def start(topic: str, build: Build, partitions: int, *, groups: int = 1) -> list[Any]:
    """Return the actors of a topic, started where they are not there; Ray must be connected.

    Args:
        topic: Its name.
        build: Makes the parts in each actor.
        partitions: How many the topic has; group g of n takes g, g + n, …
        groups: How many actors share them.
    """
    import ray

    return [
        ray.remote(_Actor)
        .options(
            name=f"headway-stream-{topic}-{group}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=2,
        )
        .remote(build, list(range(group, partitions, groups)))
        for group in range(groups)
    ]
