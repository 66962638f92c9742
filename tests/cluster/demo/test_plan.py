from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from headway.cluster.demo.plan import Chunk, chunks, due_outcomes, live_range, request_bodies
from headway.core.errors import InvalidValue
from headway.core.times import DAY, HOUR, parse_time
from headway.features.history import History
from tests.cluster.demo.conftest import START, service, tables

END = START + 2 * DAY


def plan(history: History, *, limit: int = 48, pieces: int = 4, start: int = START, until: int = END) -> list[Chunk]:
    return list(chunks(history, tables(48), start=start, until=until, limit=limit, pieces=pieces))


def test_every_request_and_every_event_known_in_the_range_comes_once(history: History) -> None:
    parts = plan(history)
    sent = [item for part in parts for item in part.requests["visit_id"].to_pylist()]
    assert sent == list(range(48))
    events = [item for part in parts for item in part.events["visits"]["visit_id"].to_pylist()]
    assert events == list(range(48))
    labels = [
        item for part in parts if "returns" in part.events for item in part.events["returns"]["visit_id"].to_pylist()
    ]
    assert labels == [index for index in range(48) if START + index * HOUR + DAY < END]


def test_chunks_are_of_one_size_and_end_after_their_last_request(history: History) -> None:
    parts = plan(history, pieces=5)
    assert [part.requests.num_rows for part in parts] == [10, 10, 10, 9, 9]
    assert parts[-1].until == END
    for before, after in pairwise(parts):
        assert (
            before.requests["event_time"].to_pylist()[-1] < before.until <= after.requests["event_time"].to_pylist()[0]
        )


def test_every_event_of_a_chunk_is_known_before_its_end(history: History) -> None:
    begin = START
    for part in plan(history):
        for table in part.events.values():
            known = table["known_time"].to_numpy()
            assert known.min() >= begin
            assert known.max() < part.until
        begin = part.until


def test_fewer_requests_are_an_even_sample(history: History) -> None:
    sent = [item for part in plan(history, limit=7) for item in part.requests["visit_id"].to_pylist()]
    assert len(sent) == 7
    assert (sent[0], sent[-1]) == (0, 47)
    assert np.ptp(np.diff(sent)) <= 1


def test_more_pieces_than_requests_still_bring_every_event(history: History) -> None:
    parts = plan(history, limit=2, pieces=5)
    assert [part.requests.num_rows for part in parts] == [1, 1, 0, 0, 0]
    assert sum(part.events["visits"].num_rows for part in parts if "visits" in part.events) == 48


def test_rows_out_of_order_are_sent_in_order_of_time(history: History) -> None:
    shuffled = {
        name: table.take(pa.array(np.random.default_rng(1).permutation(48))) for name, table in tables(48).items()
    }
    parts = list(chunks(history, shuffled, start=START, until=END, limit=48, pieces=3))
    assert [item for part in parts for item in part.requests["visit_id"].to_pylist()] == list(range(48))


def test_the_range_is_half_open(history: History) -> None:
    sent = [
        item
        for part in plan(history, start=START + HOUR, until=START + 3 * HOUR)
        for item in part.requests["visit_id"].to_pylist()
    ]
    assert sent == [1, 2]


def test_a_body_holds_keys_request_columns_and_the_time(history: History) -> None:
    bodies = request_bodies(service, tables(2)["visits"])
    assert bodies == [
        {"rows": [{"guest_id": 0, "amount": 0.0}], "as_of": "2020-01-01T00:00:00Z"},
        {"rows": [{"guest_id": 1, "amount": 1.0}], "as_of": "2020-01-01T01:00:00Z"},
    ]


def test_outcomes_are_due_for_served_events_whose_label_is_known(history: History) -> None:
    served = {0: "a", 1: "b", 40: "c"}
    due = due_outcomes(history, tables(48), served, START + DAY + HOUR)
    assert due == [
        {"decision_id": "a", "label": 0, "event_time": "2020-01-01T00:00:00Z", "known_time": "2020-01-02T00:00:00Z"},
        {"decision_id": "b", "label": 1, "event_time": "2020-01-01T01:00:00Z", "known_time": "2020-01-02T01:00:00Z"},
    ]
    assert due_outcomes(history, tables(48), served, START + DAY - 1) == []


def test_the_live_range_is_parsed_and_named_where_it_is_wrong(history: History) -> None:
    from dataclasses import replace

    assert live_range(history) == (START, parse_time("2020-01-03"))
    with pytest.raises(InvalidValue, match="live_until"):
        live_range(replace(history, live_until="soon"))
