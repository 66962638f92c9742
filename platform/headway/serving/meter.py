"""What happened since the last collection, noted where it happens: one append, and no arithmetic, on the hot path.

Touched on the serving loop only. A collector takes everything once a second (`headway.serving.telemetry`), so that the
cost of counting does not depend on what is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from headway.serving.work import Call, Recorded, Recorder

_ROUTES = {"/v1/decisions": "decisions", "/v1/outcomes": "outcomes", "/invocations": "invocations"}
DECIDING = frozenset({"decisions", "infer", "invocations"})
"""Routes that are held against the contract."""


class BatchTraces(Protocol):
    """Who wants the times of batches that hold traced requests (`headway.serving.tracing.Tracer`)."""

    def batch(self, calls: Sequence[Call], times: tuple[float, float, float, float]) -> None:
        """Take (start, features read, transformed, predicted), monotonic seconds."""
        ...


class Notes:
    """One second's notes."""

    __slots__ = ("batches", "decided", "decode", "encode", "features", "predict", "queue", "requests", "transform")

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], list[float]] = {}
        """(protocol, route, status) → seconds from received to sent."""
        self.decode: list[float] = []
        self.queue: list[float] = []
        self.features: list[float] = []
        self.transform: list[float] = []
        self.predict: list[float] = []
        self.encode: list[float] = []
        self.batches: list[int] = []
        """Rows of each."""
        self.decided: list[Recorded] = []


class Meter:
    """The notes of one replica."""

    __slots__ = ("notes", "traces", "watermark")

    def __init__(self) -> None:
        self.notes = Notes()
        self.watermark: Mapping[str, int] = {}
        """View → watermark, as last read."""
        self.traces: BatchTraces | None = None

    def answered(self, protocol: str, path: str, status: int, seconds: float) -> None:
        """Note a request."""
        key = (protocol, _ROUTES.get(path) or _route(path), status)
        try:
            self.notes.requests[key].append(seconds)
        except KeyError:
            self.notes.requests[key] = [seconds]

    def began(self, calls: Sequence[Call], rows: int, start: float) -> None:
        """Note that a batch leaves the queue."""
        notes = self.notes
        notes.batches.append(rows)
        notes.queue.extend([start - call.arrived for call in calls])

    def scored(self, calls: Sequence[Call], start: float, read: float, made: float, scored: float) -> None:
        """Note the stages of a batch that a model answered."""
        notes = self.notes
        notes.features.append(read - start)
        notes.transform.append(made - read)
        notes.predict.append(scored - made)
        if self.traces is not None:
            self.traces.batch(calls, (start, read, made, scored))

    def take(self) -> Notes:
        """Return the notes and begin anew."""
        notes, self.notes = self.notes, Notes()
        return notes


class MeteredRecorder:
    """A recorder whose batches are counted too."""

    def __init__(self, inner: Recorder, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter

    def add(self, batch: Recorded) -> None:
        """Take a batch."""
        self._inner.add(batch)
        self._meter.notes.decided.append(batch)


def _route(path: str) -> str:
    """Return one of few names: what callers write into paths must not become labels."""
    if path.endswith("/infer"):
        return "infer"
    return "health" if path.startswith("/v2/health/") else "other"
