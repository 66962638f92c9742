from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from headway.serving.drain import drain
from headway.serving.recorder import DecisionRecorder, decision_log_schema
from tests.serving.helpers import Toy, service
from tests.serving.test_spool import Lake


def test_the_log_holds_request_served_features_and_answer_bit_for_bit(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "o")
    rows = [{"customer_id": 5, "shop": "a", "amount": 20.1}, {"customer_id": 500, "shop": "b", "amount": 80}]
    payload = json.dumps({"rows": rows, "as_of": 1_500_000_000_000_000}).encode()
    _, _, answer = toy.call(
        lambda t: t.http("POST", "/v1/decisions", payload, token="replayer", headers={"x-request-id": "r9"})
    )
    recorder = DecisionRecorder(service, tmp_path / "d", "w", durable=True)
    for batch in toy.recorder.batches:
        recorder.add(batch)
    recorder.close()
    lake = Lake()
    assert drain(tmp_path / "d", "decisions.toy", lake) == 2
    [table] = lake.batches.values()
    assert table.schema == decision_log_schema(service)
    said = json.loads(answer)["decisions"]
    assert table["decision_id"].to_pylist() == [d["decision_id"] for d in said]
    assert table["score"].to_numpy().tolist() == [d["score"] for d in said]
    assert table["degraded"].to_pylist() == [",".join(d["degraded"]) for d in said]
    assert table["degraded"].to_pylist()[1].startswith("missing:activity")
    assert table["event_time"].to_pylist() == [1_500_000_000_000_000] * 2
    assert min(table["known_time"].to_pylist()) > 1_600_000_000_000_000
    assert table["sub"].to_pylist() == ["replayer"] * 2
    assert table["request_id"].to_pylist() == ["r9"] * 2
    assert table["shop"].to_pylist() == ["a", "b"]
    served = np.column_stack([table[name].to_numpy() for name in service.features])
    assert served.astype(np.float32).tobytes() == toy.recorder.batches[0].features.tobytes()


def test_the_log_holds_the_clients_own_ids(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "o")
    rows = [{"customer_id": 5, "shop": "a", "amount": 20.1}] * 2
    toy.call(lambda t: t.http("POST", "/v1/decisions", json.dumps({"rows": rows}).encode()))
    named = dataclasses.replace(service, event_id="sale_id")
    recorder = DecisionRecorder(named, tmp_path / "d", "w", durable=True)
    [batch] = toy.recorder.batches
    recorder.add(dataclasses.replace(batch, event_ids=[7, None]))
    recorder.add(batch)
    recorder.close()
    lake = Lake()
    drain(tmp_path / "d", "decisions.toy", lake)
    [table] = lake.batches.values()
    assert table.schema == decision_log_schema(named)
    assert table["sale_id"].to_pylist() == [7, None, None, None]
