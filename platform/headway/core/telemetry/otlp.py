"""Sends spans to an OpenTelemetry collector (OTLP over HTTP), from a thread of its own behind a bounded queue.

Nothing a collector does reaches a request: a full queue drops and counts, a failed export is kept for the next try
while there is room. Written against the protocol's own messages: the SDK makes each span an object with locks, which
costs more than a stage of a decision.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import unquote, urlsplit

from headway.core.errors import DefinitionError

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

T = TypeVar("T")
Value = str | int | float | bool
_LOG = logging.getLogger(__name__)
_EVERY_S = 1.0
_TIMEOUT_S = 5.0
_WAITING = 2_048
_AT_ONCE = 512
_RATIO = 0.01


class SpanKind(IntEnum):
    """As OTLP numbers them."""

    INTERNAL = 1
    SERVER = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One span, ended."""

    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes = b""
    state: str = ""
    start: float
    """Monotonic seconds."""
    end: float
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Mapping[str, Value] = field(default_factory=dict)
    links: tuple[tuple[bytes, bytes], ...] = ()
    """(trace id, span id)."""
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class OtlpSettings:
    """Where spans go, and which."""

    url: str
    """Of the traces, with its path."""
    headers: Mapping[str, str] = field(default_factory=dict)
    ratio: float = _RATIO
    """Share of requests without a parent that are traced."""
    resource: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, environment: Mapping[str, str], **resource: Value) -> OtlpSettings | None:
        """Return what the environment says (`OTEL_…`, the names of OpenTelemetry), None without an endpoint.

        DefinitionError names a variable that cannot be used.
        """
        url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
        base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        if not url and not base:
            return None
        url = url or f"{base.rstrip('/')}/v1/traces"
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DefinitionError(
                f"{url!r} is no address",
                file="environment",
                field="OTEL_EXPORTER_OTLP_ENDPOINT",
                expected="http://host:4318 (OTLP over HTTP)",
            )
        text = environment.get("OTEL_TRACES_SAMPLER_ARG", str(_RATIO))
        try:
            ratio = float(text)
        except ValueError:
            ratio = -1.0
        if not 0.0 <= ratio <= 1.0:
            raise DefinitionError(
                f"{text!r} is no share", file="environment", field="OTEL_TRACES_SAMPLER_ARG", expected="0 to 1"
            )
        named: dict[str, Value] = {**_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))}
        named.setdefault("service.name", environment.get("OTEL_SERVICE_NAME", "headway"))
        headers = _pairs(environment.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
        return cls(url=url, headers=headers, ratio=ratio, resource={**named, **resource})


class OtlpExporter(Generic[T]):
    """A queue of ended things and the thread that sends their spans."""

    def __init__(
        self,
        settings: OtlpSettings,
        build: Callable[[T], Iterable[Span]],
        *,
        epoch_s: float,
        every_s: float = _EVERY_S,
        waiting: int = _WAITING,
    ) -> None:
        """Start.

        Args:
            settings: Where to.
            build: An ended thing → its spans; called by the thread.
            epoch_s: Unix seconds at monotonic 0.
            every_s: Between two exports.
            waiting: Things that may wait.
        """
        self.sent = 0
        """Things whose spans a collector has."""
        self.dropped = 0
        """Things lost: the queue was full."""
        self._settings = settings
        self._build = build
        self._epoch_s = epoch_s
        self._every_s = every_s
        self._limit = waiting
        self._queue: deque[T] = deque()
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def submit(self, ended: T) -> None:
        """Take a thing; never waits."""
        if len(self._queue) >= self._limit:
            self.dropped += 1
        else:
            self._queue.append(ended)

    def close(self) -> None:
        """Try once more, then end."""
        self._stop.set()
        self._thread.join(timeout=2 * _TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        while self._queue:
            batch = [self._queue[place] for place in range(min(_AT_ONCE, len(self._queue)))]
            try:
                kept = self._send(batch)
            except Exception as error:  # whatever a collector does, the next second is another try
                kept = True
                if not self._failing:
                    _LOG.warning("traces cannot be sent to the collector: %s", type(error).__name__)
                self._failing = True
            if kept and len(self._queue) < self._limit:
                return
            for _ in batch:
                self._queue.popleft()
            if kept:  # full: the oldest make room
                self.dropped += len(batch)
                return

    def _send(self, batch: list[T]) -> bool:
        """Send; return whether the batch should be tried again."""
        parts = urlsplit(self._settings.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            headers = {"content-type": "application/x-protobuf", **self._settings.headers}
            connection.request("POST", path, body=self._message(batch), headers=headers)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        again = answer.status in (429, 502, 503, 504)
        if answer.status < 300:
            self.sent += len(batch)
        else:
            if not self._failing:
                _LOG.warning("the collector refuses traces: %d", answer.status)
            self.dropped += 0 if again else len(batch)
        self._failing = answer.status >= 300
        return again

    def _message(self, batch: list[T]) -> bytes:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.extend(_attributes(self._settings.resource))
        scope = group.scope_spans.add()
        scope.scope.name = "headway"
        for ended in batch:
            for span in self._build(ended):
                self._fill(scope.spans.add(), span)
        data: bytes = request.SerializeToString()
        return data

    def _fill(self, message: SpanMessage, span: Span) -> None:
        message.name = span.name
        message.trace_id, message.span_id, message.parent_span_id = span.trace_id, span.span_id, span.parent_id
        message.trace_state = span.state
        message.kind = int(span.kind)  # type: ignore[assignment]  # the stubs want their own enumeration
        message.start_time_unix_nano = round((self._epoch_s + span.start) * 1e9)
        message.end_time_unix_nano = round((self._epoch_s + span.end) * 1e9)
        message.attributes.extend(_attributes(span.attributes))
        for trace_id, span_id in span.links:
            message.links.add(trace_id=trace_id, span_id=span_id)
        if span.failed:
            message.status.code = 2  # type: ignore[assignment]  # STATUS_CODE_ERROR


def _attributes(values: Mapping[str, Value]) -> list[KeyValue]:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    made = []
    for key, value in values.items():
        match value:
            case bool():
                wrapped = AnyValue(bool_value=value)
            case int():
                wrapped = AnyValue(int_value=value)
            case float():
                wrapped = AnyValue(double_value=value)
            case _:
                wrapped = AnyValue(string_value=value)
        made.append(KeyValue(key=key, value=wrapped))
    return made


def _pairs(text: str) -> dict[str, str]:
    """Return `a=b,c=d` as a mapping; values are percent-encoded."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}
