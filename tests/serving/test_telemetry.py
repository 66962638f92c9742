from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.core.errors import Unavailable
from headway.core.telemetry.instruments import Table
from headway.core.types import Matrix
from headway.serving import metrics as m
from headway.serving.grpc.servicer import InferenceServicer
from headway.serving.meter import Meter, MeteredRecorder
from headway.serving.objectives import AVAILABILITY, P95, P99, Objectives
from headway.serving.replica import Replica
from headway.serving.telemetry import Telemetry
from tests.serving.grpc.helpers import infer, metadata
from tests.serving.helpers import Toy, schema

OBJECTIVES = Objectives(p95_s=0.02, p99_s=0.05, availability=0.99, max_lag={"activity": 5_000_000})
OF = ("toy", "7")


class Measured(Toy):
    """The toy with its telemetry."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        super().__init__(folder, **changes)
        self.telemetry = Telemetry(
            "toy",
            meter=self.meter,
            objectives=OBJECTIVES,
            version=lambda: "7",
            shed=lambda: self.service.admission.shed_above,
            look=self.look,
            outside=self.outside,
            clock=self.clock,
        )

    def look(self, table: Table) -> None:
        table.set(m.REPLAYS, self.service.decider.replayed, "toy")

    def outside(self, version: str, batches: Sequence[Matrix]) -> dict[str, int]:
        assert version in ("7", "none")
        return {"amount": sum(int((batch[:, 0] > 50).sum()) for batch in batches)}

    def collected(self) -> Table:
        self.telemetry.collect(self.meter.take())
        return self.telemetry.table


def body(*amounts: float, customer: int = 1) -> bytes:
    return json.dumps({"rows": [{"customer_id": customer, "shop": "a", "amount": x} for x in amounts]}).encode()


def test_requests_rows_and_stages_are_counted_by_who_answered_and_how(tmp_path: Path) -> None:
    toy = Measured(tmp_path)

    async def work(_: Toy) -> None:
        for sent, token in ((body(10, 60, 13), "alice"), (b"{", "alice"), (body(1), None), (body(90), "alice")):
            await toy.http("POST", "/v1/decisions", sent, token=token)
        for _again in range(2):
            await toy.http("POST", "/v1/decisions", body(5), headers={"idempotency-key": "once"})
        await toy.http("GET", "/v2/health/ready", token=None)
        await toy.http("GET", f"/{'x' * 50}")

    toy.call(work)
    table = toy.collected()
    assert table.labelled(m.REQUESTS) == {
        (*OF, "http", "decisions", "2xx", "ok"): 4,
        (*OF, "http", "decisions", "4xx", "invalid"): 1,
        (*OF, "http", "decisions", "4xx", "denied"): 1,
        (*OF, "http", "health", "2xx", "ok"): 1,
        (*OF, "http", "other", "4xx", "invalid"): 1,
    }
    assert table.labelled(m.DECISIONS) == {
        (*OF, "champion", "low"): 2, (*OF, "champion", "high"): 2, (*OF, "rules", "low"): 1,
    }  # fmt: skip
    assert table.labelled(m.DEGRADED) == {(*OF, "model:not_finite"): 1}
    assert table.labelled(m.OUTSIDE) == {(*OF, "amount"): 2}
    stages = {stage: table.count(m.STAGE_SECONDS, *OF, stage) for stage in m.STAGES}
    # a body that is no JSON is not decoded; the replay is decoded, to be compared, but neither queued nor encoded
    assert stages == {"decode": 4, "queue": 3, "features": 3, "transform": 3, "predict": 3, "encode": 3}
    assert table.count(m.BATCH_ROWS, *OF) == 3
    assert table.count(m.REQUEST_SECONDS, *OF, "http", "ok") == 4
    assert table.value(m.REPLAYS, "toy") == 1
    assert table.value(m.TRITON_COUNT, *OF) == 5
    assert table.value(m.TRITON_EXECUTIONS, *OF) == 3
    assert table.value(m.TRITON_SUCCESS, *OF) == 4
    assert table.labelled(m.TRITON_FAILURE) == {(*OF, "invalid"): 1, (*OF, "denied"): 1}


@pytest.mark.parametrize("protocol", ["http", "handle", "grpc"])
def test_each_way_in_is_seen(tmp_path: Path, protocol: str) -> None:
    toy = Measured(tmp_path)

    async def work(_: Toy) -> None:
        if protocol == "http":
            await toy.http("POST", "/v1/decisions", body(1))
        elif protocol == "grpc":
            servicer = InferenceServicer("toy", schema, toy.service)
            for message in (infer(), infer(model="other")):
                await servicer.answer("ModelInfer", message.SerializeToString(), metadata(), None)
        else:
            replica = Replica("/toy", toy)  # type: ignore[arg-type]  # of its parts only the service is used
            await replica.respond("POST", "/v1/decisions", body(1), token="alice")

    toy.call(work)
    found = toy.collected().labelled(m.REQUESTS)
    if protocol == "grpc":
        assert found == {(*OF, "grpc", "infer", "2xx", "ok"): 1, (*OF, "grpc", "infer", "4xx", "invalid"): 1}
        assert toy.telemetry.table.count(m.STAGE_SECONDS, *OF, "decode") == 1
    else:
        assert found == {(*OF, protocol, "decisions", "2xx", "ok"): 1}


def test_clauses_are_held_against_latency_failures_and_staleness_but_not_against_shedding(tmp_path: Path) -> None:
    toy = Measured(tmp_path, with_rules=False, ladder=())

    def answered(count: int, status: int, seconds: float) -> None:
        for _ in range(count):
            toy.meter.answered("http", "/v1/decisions", status, seconds)

    answered(90, 200, 0.01)
    answered(8, 200, 0.03)
    answered(2, 200, 0.06)
    answered(50, 429, 0.001)
    answered(5, 503, 0.001)
    answered(1, 500, 0.001)
    toy.service.admission.shed_above = 4
    table = toy.collected()
    held = {
        clause: (table.value(m.EVENTS, "toy", clause, "bad"), table.value(m.EVENTS, "toy", clause, "good"))
        for clause in (P95, P99, AVAILABILITY)
    }
    assert held == {P95: (10, 90), P99: (2, 98), AVAILABILITY: (2, 100)}
    assert table.value(m.BURN, "toy", P95, "5m") == pytest.approx(2.0)
    assert table.value(m.BURN, "toy", P99, "1h") == pytest.approx(2.0)
    assert table.value(m.BURN, "toy", AVAILABILITY, "1h") == pytest.approx(2 / 102 / 0.01)


def test_stale_views_burn_their_clause_and_show_their_lag(tmp_path: Path) -> None:
    toy = Measured(tmp_path)
    toy.reader.watermark = toy.clock.now() - 60_000_000
    toy.call(lambda _: toy.http("POST", "/v1/decisions", body(1, 2)))
    toy.reader.failure = Unavailable("away", retry_after_s=1)
    toy.call(lambda _: toy.http("POST", "/v1/decisions", body(1)))
    table = toy.collected()
    assert table.value(m.EVENTS, "toy", "freshness.activity", "bad") == 3
    assert table.value(m.BURN, "toy", "freshness.activity", "5m") == 1.0
    assert 60 <= table.value(m.LAG, "toy", "activity") < 90
    assert table.value(m.DEGRADED, *OF, "stale:activity") == 2
    assert table.value(m.DEGRADED, "toy", "none", "features:activity") == 1


def test_what_was_collected_is_not_collected_again() -> None:
    meter = Meter()
    meter.answered("http", "/v1/decisions", 200, 0.01)
    assert meter.take().requests == {("http", "decisions", 200): [0.01]}
    assert meter.take().requests == {}


def test_names_follow_the_house_and_labels_are_few() -> None:
    for instrument in m.ALL:
        assert instrument.name.startswith(("headway_", "nv_inference_"))
        if instrument.name.startswith("headway_"):
            assert instrument.name.endswith("_total") == (instrument.kind.value == "counter")
    assert len({instrument.name for instrument in m.ALL}) == len(m.ALL)


def test_a_recorder_that_is_metered_still_records(tmp_path: Path) -> None:
    toy = Measured(tmp_path)
    toy.call(lambda _: toy.http("POST", "/v1/decisions", body(1, 2)))
    assert isinstance(toy.scorer._recorder, MeteredRecorder)
    assert [len(batch.decisions) for batch in toy.recorder.batches] == [2]
    assert np.isfinite(toy.recorder.batches[0].scores).all()
