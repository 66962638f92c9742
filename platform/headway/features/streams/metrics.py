"""How a stream is, as Prometheus sees it: set from what the steps note, in a thread of its own, so that no step waits.

Ray puts `ray_` before the names. The bytes of a view's state are counted by length only, slowly, and by one group.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Event, Thread

from headway.core.clock import Clock, SystemClock
from headway.core.errors import HeadwayError
from headway.core.telemetry.instruments import Instrument, Kind
from headway.core.telemetry.ray_metrics import ray_metric
from headway.features.definitions import View, WindowView
from headway.features.streams.state import length
from headway.features.streams.status import PartitionStatus

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0
_STATE_EVERY = 12
"""Times as seldom is the state measured; at first, while it may be new, sooner."""
_FIRST = (1, 2, 4, 8)
_OF = ("source", "partition")
LAG = Instrument(
    name="headway_stream_lag_messages", kind=Kind.GAUGE, labels=_OF, help="Messages that no step has seen."
)
AGE = Instrument(
    name="headway_stream_watermark_age_seconds", kind=Kind.GAUGE, labels=_OF,
    help="Since the moment up to which events are there.",
)  # fmt: skip
FAILING = Instrument(
    name="headway_stream_failing_seconds", kind=Kind.GAUGE, labels=_OF, help="For which no step succeeds; 0: it does."
)
ROWS = Instrument(
    name="headway_stream_rows_total", kind=Kind.COUNTER, labels=_OF, help="Events that are safe in the lake."
)
DEAD = Instrument(
    name="headway_stream_dead_letters_total", kind=Kind.COUNTER, labels=_OF, help="Messages that became dead letters."
)
STATE = Instrument(
    name="headway_stream_state_bytes", kind=Kind.GAUGE, labels=("source", "view"), help="Of a view's values online."
)
ALL = (LAG, AGE, FAILING, ROWS, DEAD, STATE)


class StreamMetrics:
    """The metrics of one process; Ray must be connected."""

    def __init__(self) -> None:
        """Name them."""
        self._lag, self._age, self._failing = ray_metric(LAG), ray_metric(AGE), ray_metric(FAILING)
        self._rows, self._dead, self._state = ray_metric(ROWS), ray_metric(DEAD), ray_metric(STATE)
        self._counted: dict[int, tuple[int, int]] = {}

    def show(self, source: str, statuses: Sequence[PartitionStatus], now: int) -> None:
        """Set what the statuses say; counters begin when a partition is first seen here."""
        for status in statuses:
            if status.state == "fenced":
                continue  # whoever has it shows it
            at, tags = status.progress, {"source": source, "partition": str(status.progress.partition)}
            if status.end >= 0:
                self._lag.set(status.lag, tags)
            if at.watermark:
                self._age.set(max(0, now - at.watermark) / 1e6, tags)
            self._failing.set((now - status.failing_since) / 1e6 if status.failing_since else 0.0, tags)
            rows, dead = self._counted.get(at.partition, (at.rows, at.dead))
            if at.rows > rows:
                self._rows.inc(at.rows - rows, tags)
            if at.dead > dead:
                self._dead.inc(at.dead - dead, tags)
            self._counted[at.partition] = (max(rows, at.rows), max(dead, at.dead))

    def show_state(self, source: str, view: str, size: int) -> None:
        """Set the bytes of a view."""
        self._state.set(size, {"source": source, "view": view})


class Watch:
    """Shows statuses every few seconds until told to stop."""

    def __init__(
        self,
        source: str,
        status: Callable[[], Sequence[PartitionStatus]],
        views: Callable[[], tuple[str, Sequence[View]]],
        *,
        clock: Clock | None = None,
    ) -> None:
        """Start at once.

        Args:
            source: The label.
            status: How the partitions are.
            views: The online store's address and the views whose state is measured here.
            clock: Tells the age of watermarks.
        """
        self._source, self._status, self._views = source, status, views
        self._clock = clock or SystemClock()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="headway-stream-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; it takes no longer than a look."""
        self._stop.set()

    def _run(self) -> None:
        metrics, turn = StreamMetrics(), 0
        while not self._stop.wait(_EVERY_S if turn else 0.0):
            metrics.show(self._source, self._status(), self._clock.now())
            if turn in _FIRST or turn % _STATE_EVERY == 1:
                url, views = self._views()
                for view in views:
                    if isinstance(view, WindowView):
                        self._measure(metrics, url, view)
            turn += 1

    def _measure(self, metrics: StreamMetrics, url: str, view: WindowView) -> None:
        try:
            metrics.show_state(self._source, view.name, length(url, view, self._stop))
        except HeadwayError as error:
            _LOG.warning("the state of %s is not measured: %s", view.name, error)
