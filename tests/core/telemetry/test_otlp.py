from __future__ import annotations

from collections.abc import Iterator

import pytest

from headway.core.errors import DefinitionError
from headway.core.telemetry.otlp import OtlpExporter, OtlpSettings, Span, SpanKind
from tests.core.telemetry.collector import collecting, values
from tests.features.streams.world import until

TRACE, SPAN, OTHER = b"t" * 16, b"s" * 8, b"o" * 8


def spans(name: str) -> Iterator[Span]:
    yield Span(
        name=name, trace_id=TRACE, span_id=SPAN, parent_id=OTHER, state="v=1", start=1.0, end=1.5,
        kind=SpanKind.SERVER, attributes={"a": "x", "b": 2, "c": 0.5, "d": True}, links=((TRACE, OTHER),), failed=True,
    )  # fmt: skip


def settings(url: str, **more: str) -> OtlpSettings:
    found = OtlpSettings.of({"OTEL_EXPORTER_OTLP_ENDPOINT": url, **more}, replica="r1")
    assert found is not None
    return found


def test_a_collector_gets_spans_as_the_protocol_has_them() -> None:
    with collecting() as collector:
        more = {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b", "OTEL_RESOURCE_ATTRIBUTES": "team=risk"}
        exporter = OtlpExporter(settings(collector.url, **more), spans, epoch_s=1_000.0, every_s=0.01)
        exporter.submit("one")
        exporter.close()
        (span,) = collector.spans
        assert (span.name, span.trace_id, span.span_id, span.parent_span_id) == ("one", TRACE, SPAN, OTHER)
        assert (span.trace_state, span.kind, span.status.code) == ("v=1", 2, 2)
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1_001_000_000_000, 1_001_500_000_000)
        assert values(span.attributes) == {"a": "x", "b": 2, "c": 0.5, "d": True}
        assert [(link.trace_id, link.span_id) for link in span.links] == [(TRACE, OTHER)]
        assert collector.resources == [{"service.name": "headway", "team": "risk", "replica": "r1"}]
        (path, headers), *_ = collector.requests
        assert (path, headers["x-key"], headers["content-type"]) == ("/v1/traces", "a b", "application/x-protobuf")
        assert (exporter.sent, exporter.dropped) == (1, 0)


def test_what_a_collector_cannot_take_now_is_sent_later_and_never_twice() -> None:
    with collecting() as collector:
        collector.status = 503
        exporter = OtlpExporter(settings(collector.url), spans, epoch_s=0.0, every_s=0.01)
        exporter.submit("one")
        until(lambda: len(collector.requests) >= 2)
        assert (exporter.sent, exporter.dropped) == (0, 0)
        collector.status = 200
        until(lambda: exporter.sent == 1)
        exporter.close()
        assert [span.name for span in collector.spans] == ["one"]


def test_what_a_collector_refuses_for_good_is_counted_as_dropped() -> None:
    with collecting() as collector:
        collector.status = 400
        exporter = OtlpExporter(settings(collector.url), spans, epoch_s=0.0, every_s=0.01)
        exporter.submit("one")
        until(lambda: exporter.dropped == 1)
        exporter.close()
        assert exporter.sent == 0


def test_without_a_collector_the_queue_is_bounded_and_losses_are_counted() -> None:
    with collecting() as collector:
        url = collector.url
    exporter = OtlpExporter(settings(url), spans, epoch_s=0.0, every_s=0.01, waiting=10)
    for place in range(100):
        exporter.submit(str(place))
    until(lambda: exporter.dropped >= 90)
    exporter.close()
    assert exporter.sent == 0


def test_without_an_endpoint_there_is_nothing() -> None:
    assert OtlpSettings.of({}) is None
    assert settings("http://c:4318/").url == "http://c:4318/v1/traces"
    assert settings("http://c", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://d/x").url == "http://d/x"


@pytest.mark.parametrize(
    ("environment", "field"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_SAMPLER_ARG": "2"}, "OTEL_TRACES_SAMPLER_ARG"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_SAMPLER_ARG": "all"}, "OTEL_TRACES_SAMPLER_ARG"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(environment: dict[str, str], field: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        OtlpSettings.of(environment)
    assert refused.value.field == field
