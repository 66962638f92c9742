"""Some partitions of a topic in one process: steps them in turn, survives their faults, tells how they are.

As a Ray actor it is named and detached; Ray restarts it after a kill, and it goes on from the checkpoints. Which actor
has a partition is decided by the checkpoint's fence and nothing else, so two of them do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

from headway.core.errors import CapacityError, Unavailable
from headway.core.ray_session import NAMESPACE, run_in_background
from headway.features.definitions import EventSource, View
from headway.features.streams.checkpoint import Fenced
from headway.features.streams.metrics import Watch
from headway.features.streams.parts import Parts
from headway.features.streams.processor import PartitionProcessor
from headway.features.streams.status import PartitionStatus

_LOG = logging.getLogger(__name__)
_WAIT_S = 0.1
_PAUSE_S = 0.5
_LOOK_S = 1.0
_LONGEST_PAUSE_S = 10.0
_PATIENCE_S = 60.0

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
        self._parts: Parts | None = None
        self._views: Sequence[View] = ()
        self._asked: SimpleQueue[_Request] = SimpleQueue()
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

    def feed(self, source: EventSource, views: Sequence[View]) -> None:
        """Feed these views, and no others, from the next turn on; Unavailable where that turn does not come."""
        self._ask(lambda turns: turns.feed(source, views))
        self._views = views

    def flush(self) -> None:
        """Bring what is pending to the lake now."""
        self._ask(lambda turns: turns.flush())

    def skip(self) -> int:
        """Go on after messages that the stream dropped unread; return how many these were."""
        return self._ask(lambda turns: turns.skip())

    def stop(self) -> None:
        """Bring what is pending to the lake and end."""
        self._stop.set()
        self._thread.join(timeout=_PATIENCE_S)

    def _ask(self, act: Callable[[_Turns], int]) -> int:
        """Let the thread act between two turns, and wait for what comes of it."""
        request = _Request(act)
        if self._thread.is_alive():
            self._asked.put(request)
            try:
                return request.outcome.result(timeout=_PATIENCE_S)
            except TimeoutError:
                pass
        raise Unavailable("the stream does not take it up", retry_after_s=_PATIENCE_S, hint="headway stream status")

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
            self._error, self._parts, self._views = "", parts, parts.views
            _Turns(parts, self._partitions, self._stop, self._note, self._asked).run()
            return

    def _note(self, status: PartitionStatus) -> None:
        with self._lock:
            self._statuses[status.progress.partition] = status


class _Turns:
    """Steps the partitions in turn."""

    def __init__(
        self,
        parts: Parts,
        partitions: Sequence[int],
        stop: Event,
        note: Callable[[PartitionStatus], None],
        asked: SimpleQueue[_Request],
    ) -> None:
        self._parts, self._stop, self._note, self._asked = parts, stop, note, asked
        self._processors = {partition: PartitionProcessor(parts, partition) for partition in partitions}
        self._failing: dict[int, int] = {}
        self._again: dict[int, float] = {}
        self._ends: dict[int, int] = {}
        self._looked: dict[int, float] = {}

    def run(self) -> None:
        idle = False
        while not self._stop.is_set() and self._processors:
            wait = _WAIT_S / len(self._processors) if idle else 0.0
            settling = self._settling()
            done = [self._step(processor, wait, settling) for processor in list(self._processors.values())]
            idle = not any(done)
            self._act()
        for processor in self._processors.values():
            try:
                processor.flush()
            except Exception as error:  # whatever it is: the checkpoint is good
                _LOG.warning("partition %d is left to its successor: %s", processor.partition, error)
            processor.close()

    def feed(self, source: EventSource, views: Sequence[View]) -> int:
        """Let every partition feed these views; return how many views that are."""
        for processor in self._processors.values():
            processor.feed(source, views)
        return len(views)

    def flush(self) -> int:
        """Bring what every partition has pending to the lake; return the rows that are there."""
        for processor in self._processors.values():
            processor.flush()
        return sum(processor.progress.rows for processor in self._processors.values())

    def skip(self) -> int:
        """Let every partition go on after a gap; return the messages lost."""
        self._again.clear()
        return sum(processor.skip_gap() for processor in self._processors.values())

    def _act(self) -> None:
        """Do what was asked for since the last turn."""
        with suppress(Empty):
            while True:
                self._asked.get_nowait().answer(self)

    def _settling(self) -> int:
        """Return the partition whose segment is due first: one a turn, so that no other waits for more than one."""
        due = [(at, number) for number, one in self._processors.items() if (at := one.due) is not None]
        return min(due)[1] if due else -1

    def _step(self, processor: PartitionProcessor, wait_s: float, settling: int) -> bool:
        """Step one partition and note how it is; return whether there was something to do."""
        partition, clock = processor.partition, self._parts.clock
        if clock.monotonic() < self._again.get(partition, 0.0):
            self._stop.wait(wait_s)
            return False
        try:
            done = processor.step(wait_s, settle=partition == settling)
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


class _Request:
    """What a group's thread is asked to do, and what comes of it."""

    def __init__(self, act: Callable[[_Turns], int]) -> None:
        self._act = act
        self.outcome: Future[int] = Future()

    def answer(self, turns: _Turns) -> None:
        """Do it."""
        try:
            self.outcome.set_result(self._act(turns))
        except Exception as error:  # raised where it was asked
            self.outcome.set_exception(error)


class HeadwayStream(PartitionGroup):
    """A group inside Ray, which names its process like this."""

    def __init__(self, source: str, build: Build, partitions: Sequence[int]) -> None:
        run_in_background()
        super().__init__(build, partitions)
        self._watch = Watch(source, self.status, self._measured)

    def stop(self) -> None:
        """Bring what is pending to the lake and end."""
        self._watch.stop()
        super().stop()

    def _measured(self) -> tuple[str, Sequence[View]]:
        """Return the online store and the views to measure there: one group does it for all."""
        parts = self._parts
        return ("", ()) if parts is None or 0 not in self._partitions else (parts.online_url, self._views)


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
        ray.remote(HeadwayStream)
        .options(
            name=actor_name(topic, group),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=4,
        )
        .remote(topic, build, list(range(group, partitions, groups)))
        for group in range(groups)
    ]


def running(topic: str) -> list[Any]:
    """Return the actors of a topic that are there; Ray must be connected."""
    import ray

    found: list[Any] = []
    with suppress(ValueError):  # what Ray raises where no actor has the name
        while True:
            found.append(ray.get_actor(actor_name(topic, len(found)), namespace=NAMESPACE))
    return found


def actor_name(topic: str, group: int) -> str:
    """Return the name of a group's actor in the namespace `headway`."""
    return f"headway-stream-{topic}-{group}"
