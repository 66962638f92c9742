from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.core.clock import SystemClock
from headway.core.telemetry.otlp import OtlpSettings
from headway.serving.grpc.servicer import InferenceServicer
from headway.serving.replica import Replica
from headway.serving.tracing import Tracer
from tests.core.telemetry.collector import Collector, collecting, values
from tests.features.streams.world import until
from tests.serving.grpc.helpers import infer, metadata
from tests.serving.helpers import Toy, schema

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
STAGES = ["decode", "queue", "features", "transform", "predict", "encode"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def traced(folder: Path, collector: Collector, ratio: str = "0") -> Toy:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_SAMPLER_ARG": ratio}
    settings = OtlpSettings.of(environment)
    assert settings is not None
    return Toy(folder, tracer=Tracer("toy", settings, SystemClock(), every_s=0.01))


def body(*amounts: float) -> bytes:
    return json.dumps({"rows": [{"customer_id": 1, "shop": "a", "amount": amount} for amount in amounts]}).encode()


def sent(toy: Toy, count: int) -> None:
    tracer = toy.tracer
    assert tracer is not None
    until(lambda: tracer.exporter.sent >= count)
    tracer.close()
    assert tracer.exporter.dropped == 0


def test_a_traced_request_has_a_server_span_and_its_stages(tmp_path: Path, collector: Collector) -> None:
    toy = traced(tmp_path, collector)
    before = SystemClock().now() * 1_000
    answer = toy.call(lambda _: toy.http("POST", "/v1/decisions", body(1, 2), headers=SAMPLED))
    sent(toy, 2)
    (server,) = collector.named("POST /v1/decisions")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert (server.kind, server.status.code, server.trace_state) == (2, 0, "vendor=1")
    found = values(server.attributes)
    assert found.pop("headway.request_id") == answer[1]["x-request-id"]
    assert found == {
        "headway.use_case": "toy", "headway.protocol": "http", "http.request.method": "POST",
        "url.path": "/v1/decisions", "http.response.status_code": 200,
    }  # fmt: skip
    assert answer[1]["traceresponse"] == f"00-{TRACE}-{server.span_id.hex()}-01"
    stages = [span for span in collector.spans if span.parent_span_id == server.span_id]
    assert [span.name for span in stages] == STAGES
    assert {span.trace_id.hex() for span in stages} == {TRACE}
    times = [time for span in stages for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert times == sorted(times)
    assert before <= server.start_time_unix_nano <= times[0]
    assert times[-1] <= server.end_time_unix_nano <= SystemClock().now() * 1_000 + 1_000_000


def test_a_batch_is_linked_with_its_requests(tmp_path: Path, collector: Collector) -> None:
    toy = traced(tmp_path, collector, ratio="1")

    async def work(_: Toy) -> None:
        await asyncio.gather(*(toy.http("POST", "/v1/decisions", body(1)) for _ in range(3)))

    toy.call(work)
    batches = len(toy.recorder.batches)
    sent(toy, 3 + batches)
    servers = collector.named("POST /v1/decisions")
    assert len({span.trace_id for span in servers}) == 3
    spans = collector.named("batch")
    assert sum(values(span.attributes)["headway.calls"] for span in spans) == 3
    links = {(link.trace_id, link.span_id) for span in spans for link in span.links}
    assert links == {(span.trace_id, span.span_id) for span in servers}
    back = {(link.trace_id, link.span_id) for span in collector.named("predict") for link in span.links}
    assert back == {(span.trace_id, span.span_id) for span in spans}


@pytest.mark.parametrize("flags", ["00", None])
def test_what_nobody_samples_leaves_no_span(tmp_path: Path, collector: Collector, flags: str | None) -> None:
    toy = traced(tmp_path, collector)
    headers = {} if flags is None else {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
    _, answered, _ = toy.call(lambda _: toy.http("POST", "/v1/decisions", body(1), headers=headers))
    assert "traceresponse" not in answered
    assert toy.tracer is not None
    toy.tracer.close()
    assert collector.requests == []


def test_a_handle_call_carries_its_trace(tmp_path: Path, collector: Collector) -> None:
    toy = traced(tmp_path, collector)
    replica = Replica("/toy", toy)  # type: ignore[arg-type]  # of its parts only the service is used

    async def work(_: Toy) -> tuple[int, bytes]:
        return await replica.respond("POST", "/v1/decisions", body(1), token="alice", **SAMPLED)

    assert toy.call(work)[0] == 200
    sent(toy, 2)
    (server,) = collector.named("POST /v1/decisions")
    assert server.parent_span_id.hex() == PARENT
    assert values(server.attributes)["headway.protocol"] == "handle"


def test_a_grpc_call_carries_its_trace_in_metadata(tmp_path: Path, collector: Collector) -> None:
    toy = traced(tmp_path, collector)
    servicer = InferenceServicer("toy", schema, toy.service)

    async def work(_: Toy) -> str:
        said = metadata(**SAMPLED)
        return (await servicer.answer("ModelInfer", infer().SerializeToString(), said, None)).status.code

    assert toy.call(work) == "OK"
    sent(toy, 2)
    (server,) = collector.named("POST /v2/models/toy/infer")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert values(server.attributes)["headway.protocol"] == "grpc"
    assert [span.name for span in collector.spans if span.parent_span_id == server.span_id] == STAGES


def test_a_failed_request_is_found_by_its_trace_in_the_log(
    tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    toy = traced(tmp_path, collector)

    async def broken(*_: Any) -> None:
        raise RuntimeError("inside")

    toy.service.decider.once = broken  # type: ignore[method-assign,assignment]  # what no input can do
    with caplog.at_level(logging.ERROR):
        status, answered, _ = toy.call(lambda _: toy.http("POST", "/v1/decisions", body(1), headers=SAMPLED))
    assert status == 500
    (record,) = [record for record in caplog.records if record.name == "headway.serving.service"]
    assert record.__dict__["trace_id"] == TRACE
    assert record.__dict__["request_id"] == answered["x-request-id"]
    sent(toy, 1)
    (server,) = collector.named("POST /v1/decisions")
    assert server.status.code == 2


def test_a_collector_that_is_away_harms_no_request(tmp_path: Path) -> None:
    with collecting() as gone:
        pass
    toy = traced(tmp_path, gone)
    answers = toy.call(lambda _: toy.http("POST", "/v1/decisions", body(1), headers=SAMPLED))
    assert answers[0] == 200
    assert toy.tracer is not None
    toy.tracer.close()
    assert toy.tracer.exporter.sent == 0
