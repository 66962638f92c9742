from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.times import DAY, HOUR
from headway.features.arrow import conform, events_of
from headway.features.definitions import EventSource, RowView
from headway.features.ingest import require_past
from headway.features.lake.schema import conform_table, schema_of
from headway.features.lake.tables import spec_of
from headway.features.streams.decoding import Decoder
from headway.features.streams.port import Message
from tests.features.oracle import CARD, SOURCE, a_view

NOW = 50_000 * DAY
WIDE = EventSource(
    name="wide",
    columns={
        "n": "int64", "f": "float32", "d": "float64", "s": "string", "b": "bool", "t": "timestamp", "card": "int64",
    },
    id="n",
    bucket_by="card",
)  # fmt: skip
GOOD: dict[str, Any] = {"n": 1, "f": 1.5, "d": 2.5, "s": "x", "b": True, "t": 7, "card": 3, "event_time": 10}


def messages(*values: object) -> list[Message]:
    texts = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return [Message(offset=i, key=b"k", value=text, published=20 + i) for i, text in enumerate(texts)]


def test_rows_are_in_the_sources_types_and_times_in_microseconds() -> None:
    written = {**GOOD, "t": "1970-01-01T00:00:01Z", "event_time": "1970-01-01T01:00:01+01:00", "known_time": 2_000_000}
    decoded = Decoder(WIDE, []).decode(messages(GOOD, written, {**GOOD, "f": 1, "s": None}), NOW)
    assert decoded.dead == []
    assert decoded.rows["t"].to_pylist() == [7, 1_000_000, 7]
    assert decoded.rows["event_time"].to_pylist() == [10, 1_000_000, 10]
    assert decoded.rows["known_time"].to_pylist() == [20, 2_000_000, 22]  # published, as none was given
    assert conform(WIDE, decoded.rows) == decoded.rows.cast(conform(WIDE, decoded.rows).schema)
    assert decoded.rows.schema == conform(WIDE, decoded.rows).schema


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n": None}, "`$.n`"),
        ({"n": 2**63}, "`$.n`"),
        ({"n": "1"}, "`$.n`"),
        ({"s": 1}, "`$.s`"),
        ({"b": 1}, "`$.b`"),
        ({"f": True}, "`$.f`"),
        ({"event_time": None}, "`$.event_time`"),
        ({"event_time": "soon"}, "`$.event_time`"),
        ({"event_time": -(2**61)}, "event_time: is more than 999 years"),
        ({"event_time": 20 + HOUR + 1}, "event_time: is more than 1h after its known_time"),
        ({"event_time": NOW, "known_time": NOW + HOUR + 1}, "known_time: is more than 1h after the clock"),
        ({"event_time": NOW + HOUR + 1, "known_time": NOW + HOUR}, "event_time: is more than 1h after the clock"),
    ],
)
def test_what_is_no_event_says_why(change: dict[str, object], why: str) -> None:
    decoded = Decoder(WIDE, []).decode(messages({**GOOD, **change}, GOOD), NOW)
    assert decoded.rows.num_rows == 1
    (letter,) = decoded.dead
    assert why in letter.reason
    assert letter.message.offset == 0


@pytest.mark.parametrize("value", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"n":1}{"n":2}', b"\x00" * 9])
def test_poison_bytes(value: bytes) -> None:
    decoded = Decoder(WIDE, []).decode(messages(value, GOOD), NOW)
    assert [letter.message.value for letter in decoded.dead] == [value]
    assert decoded.rows.num_rows == 1


def test_unknown_fields_are_left_out_and_named() -> None:
    decoded = Decoder(WIDE, []).decode(messages({**GOOD, "new": {"a": 1}}, {"new": 1, "n": "no"}), NOW)
    assert (decoded.rows.num_rows, decoded.unknown) == (1, {"new"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["payment", "card", "amount", "event_time", "known_time", "other"]


@given(
    st.lists(
        st.binary(max_size=20)
        | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6)
        | st.fixed_dictionaries(
            {
                "payment": st.integers(-(2**63), 2**63 - 1),
                "card": st.integers(0, 5) | st.none(),
                "amount": st.floats() | st.none(),
                "event_time": st.integers(-(2**62), 2**62) | st.integers(0, NOW),
            }
        ),
        max_size=8,
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_is_a_dead_letter_or_a_row_that_lake_and_views_take(values: list[Any]) -> None:
    """The law that keeps a partition from standing still: no message makes a later step fail."""
    view = a_view()
    rows_view = RowView(name="r", entity=CARD, source=SOURCE, columns=("amount",))
    given_messages = messages(*values)
    decoded = Decoder(SOURCE, [view, rows_view]).decode(given_messages, NOW)
    assert len(decoded.dead) + decoded.rows.num_rows == len(values)
    assert Decoder(SOURCE, [view, rows_view]).decode(given_messages, NOW).rows.equals(decoded.rows)
    require_past(SOURCE, decoded.rows, NOW)
    events_of(view, conform(SOURCE, decoded.rows))
    lake = conform_table(spec_of(SOURCE), decoded.rows, NOW, schema_of(spec_of(SOURCE)).as_arrow())
    assert isinstance(lake, pa.Table)
