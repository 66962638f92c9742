from __future__ import annotations

import json

import pytest

from headway.core.errors import HeadwayError, InvalidValue, Malformed, TooLarge
from headway.serving.event_bodies import MAX_EVENT, MAX_EVENTS, require_unique_members, split

JSON, LINES = "application/json", "application/x-ndjson"
A, B = b'{"id": 1, "event_time": 5}', b'{"id": 2}'


@pytest.mark.parametrize(
    ("body", "content_type", "events"),
    [
        (A, JSON, [A]),
        (b" " + A + b"\n", JSON, [b" " + A + b"\n"]),
        (b'{"events": [' + A + b" , " + B + b"]}", JSON, [A, B]),
        (b'{"events": 5, "id": 1}', JSON, [b'{"events": 5, "id": 1}']),  # a source may have a column of that name
        (A + b"\n" + B, LINES, [A, B]),
        (b"\n" + A + b"\r\n\r\n  \n" + B + b"\n", LINES, [A + b"\r", B]),
        (b"{broken\n" + A, LINES, [b"{broken", A]),  # judged event by event
    ],
)
def test_three_forms_of_a_body(body: bytes, content_type: str, events: list[bytes]) -> None:
    assert split(body, content_type) == events


@pytest.mark.parametrize(
    ("body", "content_type", "kind", "field"),
    [
        (b"", JSON, Malformed, None),
        (b"{", JSON, Malformed, None),
        (b"\xff", JSON, Malformed, None),
        (b"[" * 100_000, JSON, HeadwayError, None),
        (b"[]", JSON, InvalidValue, "body"),
        (b"5", JSON, InvalidValue, "body"),
        (b'{"events": {}}', JSON, InvalidValue, "events"),
        (b'{"events": []}', JSON, InvalidValue, "events"),
        (b"\n \n", LINES, InvalidValue, "events"),
        (b'{"events": [' + b",".join([B] * (MAX_EVENTS + 1)) + b"]}", JSON, TooLarge, "events"),
        (b"\n".join([B] * (MAX_EVENTS + 1)), LINES, TooLarge, "events"),
    ],
)
def test_bodies_that_hold_no_events(body: bytes, content_type: str, kind: type[HeadwayError], field: str) -> None:
    with pytest.raises(kind) as caught:
        split(body, content_type)
    assert field is None or caught.value.field == field


def test_a_member_that_stands_twice_is_named() -> None:
    require_unique_members([A, b"{broken", json.dumps({"a": {"b": 1}, "b": 1}).encode()])
    with pytest.raises(Malformed) as caught:
        require_unique_members([A, b'{"id": 1, "amount": 1, "amount": 2}'])
    assert caught.value.field == "events[1].amount"


@pytest.mark.parametrize(("body", "content_type"), [(b"%b", JSON), (b'{"events": [%b]}', JSON), (b"%b\n", LINES)])
def test_an_event_has_a_bounded_size(body: bytes, content_type: str) -> None:
    most = b'{"id": 1, "text": "%b"}' % (b"x" * (MAX_EVENT - 21))
    assert len(split(body % most, content_type)) == 1
    with pytest.raises(TooLarge) as caught:
        split(body % most.replace(b"1", b"10"), content_type)
    assert caught.value.field == "events[0]"
