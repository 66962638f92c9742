"""Where messages go that are no events: a table of the lake, committed with the segment that they came in."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

import pyarrow as pa

from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.lake.tables import TableSpec
from headway.features.streams.decoding import DeadLetter

DEAD_LETTERS = TableSpec(
    name="streams.dead_letters",
    columns={
        "source": "string",
        "topic": "string",
        "partition": "int64",
        "offset": "int64",
        "key": "string",
        "value": "string",
        "reason": "string",
    },
    purposes=("operations",),
)
"""`key` and `value` are base64: the bytes may be anything. The times are those at which the stream took the message."""


def table_of(source: str, topic: str, partition: int, letters: Sequence[DeadLetter]) -> pa.Table:
    """Return dead letters as rows of the table."""
    published = pa.array([letter.message.published for letter in letters], pa.int64())
    return pa.table(
        {
            "source": pa.array([source] * len(letters)),
            "topic": pa.array([topic] * len(letters)),
            "partition": pa.array([partition] * len(letters), pa.int64()),
            "offset": pa.array([letter.message.offset for letter in letters], pa.int64()),
            "key": pa.array([b64encode(letter.message.key).decode() for letter in letters]),
            "value": pa.array([b64encode(letter.message.value).decode() for letter in letters]),
            "reason": pa.array([letter.reason for letter in letters]),
            EVENT_TIME: published,
            KNOWN_TIME: published,
        }
    )
