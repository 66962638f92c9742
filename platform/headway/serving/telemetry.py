"""Makes metrics of a replica's notes, once a second, beside the requests: the loop only swaps lists.

Serve's own request metrics are blind behind the hook, and know nothing of rows, arms, stages and clauses without it;
these are the same with the hook on and off, for HTTP, gRPC and handle calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from headway.core.clock import Clock
from headway.core.telemetry.instruments import Instrument, Table
from headway.core.types import Matrix
from headway.serving import metrics as m
from headway.serving.batch import NO_MODEL
from headway.serving.meter import DECIDING, Meter, Notes
from headway.serving.objectives import AVAILABILITY, P95, P99, Budgets, Objectives, freshness
from headway.serving.work import Recorded

_LOG = logging.getLogger(__name__)
COLLECT_S = 1.0
_SHOW_EVERY = 5
"""Collections between two looks of the sink: Ray's agent reports every ten seconds."""
_OUTCOMES = {401: "denied", 403: "denied", 409: "conflict", 429: "quota", 503: "unavailable"}


class Sink(Protocol):
    """Where metrics are seen (`headway.core.telemetry.ray_metrics.RayMetrics`)."""

    def show(self, table: Table) -> None:
        """Show every series; blocking."""
        ...


class Telemetry:
    """The metrics of one replica."""

    def __init__(
        self,
        use_case: str,
        *,
        meter: Meter,
        objectives: Objectives,
        version: Callable[[], str | None],
        shed: Callable[[], int],
        look: Callable[[Table], None],
        outside: Callable[[str, Sequence[Matrix]], dict[str, int]],
        clock: Clock,
        sink: Sink | None = None,
    ) -> None:
        """Count from now on.

        Args:
            use_case: The label.
            meter: Whose notes are taken.
            objectives: The contract's.
            version: The champion, whose requests these are.
            shed: Requests shed above the ceiling so far: they are not held against availability.
            look: Sets gauges, and counters that are counted where things happen.
            outside: Version and served rows → feature → values outside the signed range.
            clock: For the windows of budgets and the age of watermarks.
            sink: Where the metrics are shown; None: in `table` only.
        """
        self.table = Table()
        self._use_case = use_case
        self._meter = meter
        self._objectives = objectives
        self._buckets = objectives.buckets
        self._budgets = Budgets(objectives)
        self._version = version
        self._shed = shed
        self._shed_before = 0
        self._look = look
        self._outside = outside
        self._clock = clock
        self._sink = sink
        self._round = 0

    async def follow(self) -> None:
        """Collect for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(COLLECT_S)
            notes = self._meter.take()
            try:
                await loop.run_in_executor(None, self.collect, notes)
            except Exception as error:  # metrics never stop a replica
                _LOG.warning("metrics of %s: %s", self._use_case, type(error).__name__, exc_info=error)

    def collect(self, notes: Notes) -> None:
        """Count the notes; blocking, one call at a time."""
        version = self._version() or NO_MODEL
        of = (self._use_case, version)
        self._requests(notes, of)
        for stage in m.STAGES:
            self.table.observe(m.STAGE_SECONDS, getattr(notes, stage), m.STAGE_BUCKETS, *of, stage)
        self.table.observe(m.BATCH_ROWS, notes.batches, m.ROW_BUCKETS, *of)
        self._decided(notes)
        self._totals(notes, of)
        now = self._clock.now()
        for view, watermark in self._meter.watermark.items():
            if watermark:
                self.table.set(m.LAG, max(0, now - watermark) / 1e6, self._use_case, view)
        for (clause, window), rate in self._budgets.burn(self._clock.monotonic()).items():
            self.table.set(m.BURN, rate, self._use_case, clause, window)
        self._look(self.table)
        self._round += 1
        if self._sink is not None and self._round % _SHOW_EVERY == 1:
            self._sink.show(self.table)

    def _requests(self, notes: Notes, of: tuple[str, str]) -> None:
        """Count requests, and hold decisions against latency and availability."""
        above95 = above99 = answered = failed = 0
        for (protocol, route, status), seconds in notes.requests.items():
            outcome = "ok" if status < 400 else _OUTCOMES.get(status, "invalid" if status < 500 else "failed")
            kind = f"{status // 100}xx"
            self.table.add(m.REQUESTS, len(seconds), *of, protocol, route, kind, outcome)
            if route not in DECIDING:
                continue
            times = np.asarray(seconds)
            self.table.observe(m.REQUEST_SECONDS, times, self._buckets, *of, protocol, outcome)
            if outcome == "ok":
                answered += len(times)
                above95 += int(np.count_nonzero(times > self._objectives.p95_s))
                above99 += int(np.count_nonzero(times > self._objectives.p99_s))
                self.table.add(m.TRITON_SUCCESS, len(times), *of)
                self.table.add(m.TRITON_REQUEST, 1e6 * float(times.sum()), *of)
            else:
                self.table.add(m.TRITON_FAILURE, len(times), *of, outcome)
                failed += len(times) if status >= 500 else 0
        shed = self._shed()
        failed = max(0, failed - (shed - self._shed_before))
        self._shed_before = shed
        self._held(P95, above95, answered)
        self._held(P99, above99, answered)
        self._held(AVAILABILITY, failed, answered + failed)

    def _held(self, clause: str, bad: int, total: int) -> None:
        self.table.add(m.EVENTS, total - bad, self._use_case, clause, "good")
        self.table.add(m.EVENTS, bad, self._use_case, clause, "bad")
        self._budgets.add(clause, bad, total, self._clock.monotonic())

    def _decided(self, notes: Notes) -> None:
        """Count rows by version, arm, label and mark, and hold them against freshness."""
        by_version: dict[str, list[Recorded]] = {}
        for batch in notes.decided:
            by_version.setdefault(batch.model_version, []).append(batch)
        stale: Counter[str] = Counter()
        rows = 0
        for version, batches in by_version.items():
            decisions = [decision for batch in batches for decision in batch.decisions]
            rows += len(decisions)
            of = (self._use_case, version)
            for (arm, label), count in Counter((item.arm, item.label) for item in decisions).items():
                self.table.add(m.DECISIONS, count, *of, arm, label)
            marks = Counter(mark for item in decisions for mark in item.degraded)
            for mark, count in marks.items():
                self.table.add(m.DEGRADED, count, *of, mark)
            stale += marks
            for feature, count in self._outside(version, [batch.features for batch in batches]).items():
                self.table.add(m.OUTSIDE, count, *of, feature)
        for view in self._objectives.max_lag:
            broken = sum(stale[f"{mark}:{view}"] for mark in ("stale", "recomputed", "features"))
            self._held(freshness(view), min(broken, rows), rows)

    def _totals(self, notes: Notes, of: tuple[str, str]) -> None:
        """Add what Triton counts in microseconds."""
        totals: tuple[tuple[Instrument, float], ...] = (
            (m.TRITON_COUNT, sum(notes.batches)),
            (m.TRITON_EXECUTIONS, len(notes.batches)),
            (m.TRITON_QUEUE, 1e6 * sum(notes.queue)),
            (m.TRITON_INPUT, 1e6 * (sum(notes.features) + sum(notes.transform))),
            (m.TRITON_INFER, 1e6 * sum(notes.predict)),
            (m.TRITON_OUTPUT, 1e6 * sum(notes.encode)),
        )
        for counter, amount in totals:
            self.table.add(counter, amount, *of)
