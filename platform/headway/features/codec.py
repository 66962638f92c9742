"""The packed value of one key of one window view: a header and one int64 record per event.

Layout, little-endian int64: [magic, sequence, truncated_before, CRC-32 of the records], then per event
[event_time, known_time, id, value of each (column, scale) in sorted order]. Records of several keys can be joined and
read as one matrix. The sequence grows with every write and is what compare-and-set compares.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from headway.core.canonical import canonical, sha256
from headway.core.errors import CorruptState
from headway.features.definitions import RowView, View, WindowView
from headway.features.events import NEVER, VALUES, Events
from headway.features.row_codec import shape_sha256

MAGIC = 0x3157_4448
HEADER = struct.Struct("<qqqq")


def prefix(view: WindowView) -> bytes:
    """Return what the view's keys begin with: another shape of record, another reach or another cap gets other keys.

    So versions of a view stand side by side, and none reads what the other has pruned.
    """
    shape = {
        "source": view.source.name,
        "entity": view.entity.describe()["key"],
        "columns": [list(c) for c in view.columns],
        "retracts": view.source.retracts is not None,
        "horizon": view.horizon,
        "max_events": view.max_events,
    }
    return f"headway:f:{view.name}@{sha256(canonical(shape))[:8]}:".encode()


def watermark_key(view: View) -> bytes:
    """Return the key of the view's watermark."""
    if isinstance(view, RowView):
        return f"headway:w:{view.name}@{shape_sha256(view)[:8]}".encode()
    return b"headway:w:" + prefix(view)[len(b"headway:f:") : -1]


def width(view: WindowView) -> int:
    """Return the int64s per event."""
    return VALUES + len(view.columns) + (view.source.retracts is not None)


def pack(sequence: int, truncated_before: int, records: bytes) -> bytes:
    """Return the stored value."""
    return HEADER.pack(MAGIC, sequence, truncated_before, zlib.crc32(records)) + records


def unpack(view: WindowView, payloads: Sequence[bytes | None]) -> tuple[Events, list[int]]:
    """Return the events of keys 0, 1, …, one per payload (None: never written), and their sequences.

    Raises CorruptState where a value is not what `pack` wrote.
    """
    wide = width(view)
    size = wide * 8
    header = HEADER.size
    m = len(payloads)
    offsets = [0] * (m + 1)
    end = 0
    truncated = [NEVER] * m
    sequences = [0] * m
    parts: list[memoryview] = []
    for i, payload in enumerate(payloads):
        offsets[i + 1] = end
        if payload is None:
            continue
        body = memoryview(payload)[header:]
        if len(payload) < header or len(body) % size:
            raise _corrupt(view)
        magic, sequences[i], truncated[i], checksum = HEADER.unpack_from(payload)
        if magic != MAGIC or zlib.crc32(body) != checksum:
            raise _corrupt(view)
        end += len(body) // size
        offsets[i + 1] = end
        parts.append(body)
    events = Events(
        keys=np.arange(m, dtype=np.int64),
        offsets=np.array(offsets, np.int64),
        records=np.frombuffer(b"".join(parts), "<i8").reshape(-1, wide),
        truncated_before=np.array(truncated, np.int64),
    )
    return events, sequences


def _corrupt(view: WindowView) -> CorruptState:
    return CorruptState(
        f"the online features of {view.name} hold a value that was not written by this platform",
        hint="delete the keys headway:f:* of the view and run: headway features materialize",
    )
