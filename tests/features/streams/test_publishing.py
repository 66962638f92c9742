from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headway.features.definitions import EventSource
from headway.features.streams.decoding import Decoder
from headway.features.streams.port import Message
from headway.features.streams.publishing import Judge
from tests.features.oracle import SOURCE, a_view

SHOPS = EventSource(name="shops", columns={"sale": "int64", "shop": "string"}, id="sale", bucket_by="shop")
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5)
)


@given(
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("payment", "card", "amount", "event_time"), ANYTHING)))
)
def test_events_and_the_rest_are_what_a_processor_makes_of_them(events: list[dict[str, Any]]) -> None:
    values = [json.dumps(event).encode() for event in events]
    views = [a_view()]
    judged = Judge(SOURCE, views).judge(values, 10_000)
    assert [value for _, value in judged.pairs] == [values[place] for place in judged.places]
    assert sorted([*judged.places, *(letter.message.offset for letter in judged.dead)]) == list(range(len(values)))
    read = Decoder(SOURCE, views).decode(
        [Message(offset=i, key=k, value=v, published=10_000) for i, (k, v) in enumerate(judged.pairs)], 10_000
    )
    assert read.dead == []
    cards = read.rows["card"].to_pylist()
    assert [key for key, _ in judged.pairs] == [b"" if card is None else str(card).encode() for card in cards]
    for letter in judged.dead:
        assert letter.field in ("", "payment", "card", "amount", "event_time")
        assert not letter.field or letter.field in letter.reason


def test_keys_are_text_as_it_stands() -> None:
    names = ["a", "é", "7", "", None]
    values = [json.dumps({"sale": i, "shop": shop, "event_time": 1}).encode() for i, shop in enumerate(names)]
    judged = Judge(SHOPS, []).judge(values, 10)
    assert [key for key, _ in judged.pairs] == [b"a", "é".encode(), b"7", b"", b""]


def test_no_values_are_no_events() -> None:
    judged = Judge(SOURCE, []).judge([], 10)
    assert (judged.pairs, judged.places, judged.dead) == ([], [], [])
