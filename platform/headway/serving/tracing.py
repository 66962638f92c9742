"""Traces of requests: a server span, its stages below it, and a span of each batch that is linked with its requests.

Off unless a collector is named. Of a traced request the loop notes stages as tuples; spans are made of them in the
exporter's thread. Features, transformation and prediction happen once per batch, so their times are the batch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headway.core.clock import Clock
from headway.core.telemetry.otlp import OtlpExporter, OtlpSettings, Span, SpanKind
from headway.core.telemetry.trace_context import Sampler, SpanContext, new_span_id, parse
from headway.serving.work import Call

_Link = tuple[bytes, bytes]


@dataclass(slots=True)
class RequestTrace:
    """What is noted of one traced request."""

    context: SpanContext
    parent_id: bytes
    stages: list[tuple[str, float, float, _Link | None]] = field(default_factory=list)
    """(name, start, end, the batch's span)."""
    name: str = ""
    start: float = 0.0
    end: float = 0.0
    attributes: dict[str, str | int] = field(default_factory=dict)
    failed: bool = False

    def stage(self, name: str, start: float, end: float, link: _Link | None = None) -> None:
        """Note a stage, in monotonic seconds."""
        self.stages.append((name, start, end, link))


@dataclass(frozen=True, slots=True)
class BatchTrace:
    """What is noted of a batch that holds traced requests."""

    context: SpanContext
    times: tuple[float, float, float, float]
    calls: int
    rows: int
    links: tuple[_Link, ...]


class Tracer:
    """The traces of one replica."""

    def __init__(self, use_case: str, settings: OtlpSettings, clock: Clock, *, every_s: float = 1.0) -> None:
        self._use_case = use_case
        self._sampler = Sampler(settings.ratio)
        epoch_s = clock.now() / 1e6 - clock.monotonic()
        self.exporter: OtlpExporter[RequestTrace | BatchTrace] = OtlpExporter(
            settings, self._spans, epoch_s=epoch_s, every_s=every_s
        )

    def begin(self, headers: Mapping[bytes, bytes]) -> RequestTrace | None:
        """Return the trace of a request with these headers, None where it is not sampled."""
        given = headers.get(b"traceparent")
        parent = None if given is None else parse(given, headers.get(b"tracestate"))
        context = self._sampler.begin(parent)
        return None if context is None else RequestTrace(context, parent.span_id if parent else b"")

    def end(self, trace: RequestTrace) -> None:
        """Take an ended request."""
        self.exporter.submit(trace)

    def batch(self, calls: Sequence[Call], times: tuple[float, float, float, float]) -> None:
        """Note the stages of a batch in its traced requests."""
        traced = [(call, call.trace) for call in calls if call.trace is not None]
        if not traced:
            return
        first = traced[0][1].context
        context = SpanContext(new_span_id() + new_span_id(), new_span_id(), sampled=first.sampled)
        link = (context.trace_id, context.span_id)
        start, read, made, scored = times
        for call, trace in traced:
            trace.stage("queue", call.arrived, start)
            trace.stage("features", start, read, link)
            trace.stage("transform", read, made, link)
            trace.stage("predict", made, scored, link)
        links = tuple((trace.context.trace_id, trace.context.span_id) for _, trace in traced)
        rows = sum(call.size for call in calls)
        self.exporter.submit(BatchTrace(context, times, len(calls), rows, links))

    def close(self) -> None:
        """Send what is left."""
        self.exporter.close()

    def _spans(self, ended: RequestTrace | BatchTrace) -> Iterator[Span]:
        return self._of_request(ended) if isinstance(ended, RequestTrace) else self._of_batch(ended)

    def _of_request(self, trace: RequestTrace) -> Iterator[Span]:
        context = trace.context
        yield Span(
            name=trace.name,
            trace_id=context.trace_id,
            span_id=context.span_id,
            parent_id=trace.parent_id,
            state=context.state,
            start=trace.start,
            end=trace.end,
            kind=SpanKind.SERVER,
            attributes={"headway.use_case": self._use_case, **trace.attributes},
            failed=trace.failed,
        )
        for name, start, end, link in trace.stages:
            yield _child(context, name, start, end, () if link is None else (link,))

    def _of_batch(self, batch: BatchTrace) -> Iterator[Span]:
        context = batch.context
        start, read, made, scored = batch.times
        yield Span(
            name="batch",
            trace_id=context.trace_id,
            span_id=context.span_id,
            start=start,
            end=scored,
            attributes={"headway.use_case": self._use_case, "headway.calls": batch.calls, "headway.rows": batch.rows},
            links=batch.links,
        )
        for name, begin, end in (("features", start, read), ("transform", read, made), ("predict", made, scored)):
            yield _child(context, name, begin, end, ())


def _child(context: SpanContext, name: str, start: float, end: float, links: tuple[_Link, ...]) -> Span:
    return Span(
        name=name,
        trace_id=context.trace_id,
        span_id=new_span_id(),
        parent_id=context.span_id,
        state=context.state,
        start=start,
        end=end,
        links=links,
    )
