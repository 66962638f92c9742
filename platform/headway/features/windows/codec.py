"""The packed value of one key of one window view: a header and one int64 record per event, before them the tiles.

Layout, little-endian int64: [magic, sequence, truncated_before, CRC-32 of all that follows]; of a view of hop tiles
[number of tiles, number of hashes], the tiles (`TileLayout`), the hashes; then per event [event_time, known_time, id,
value of each (column, scale) in sorted order]. Records of several keys can be joined and read as one matrix. The
sequence grows with every write and is what compare-and-set compares.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from headway.core.canonical import canonical, sha256
from headway.core.errors import CorruptState
from headway.core.types import Int64
from headway.features.definitions import WindowView
from headway.features.windows.events import Events
from headway.features.windows.scan import NEVER, VALUES
from headway.features.windows.tiles import Summaries, TileLayout, tile_layout, tiles_of

MAGIC = 0x3157_4448
HEADER = struct.Struct("<qqqq")
_SIZES = struct.Struct("<qq")


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
        **({"max_events": view.max_events} if view.exact else {"hop": view.step}),
    }
    return f"headway:f:{view.name}@{sha256(canonical(shape))[:8]}:".encode()


def width(view: WindowView) -> int:
    """Return the int64s per event."""
    return VALUES + len(view.columns) + (view.source.retracts is not None)


def pack(sequence: int, truncated_before: int, body: bytes) -> bytes:
    """Return the stored value; the body is records, or what `tiles_body` made."""
    return HEADER.pack(MAGIC, sequence, truncated_before, zlib.crc32(body)) + body


def tiles_body(tiles: Int64, hashes: Int64, records: Int64) -> bytes:
    """Return the body of a key's value in a view of hop tiles."""
    return b"".join([_SIZES.pack(len(tiles), len(hashes)), tiles.tobytes(), hashes.tobytes(), records.tobytes()])


def unpack(
    view: WindowView, payloads: Sequence[bytes | None], layout: TileLayout | None = None
) -> tuple[Events, list[int]]:
    """Return the events of keys 0, 1, …, one per payload (None: never written), and their sequences.

    Args:
        view: Whose values.
        payloads: As `pack` made them.
        layout: Of the view's tiles, where the caller has it compiled.

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
    sums = None if view.exact else _Sums(layout or tile_layout(view))
    for i, payload in enumerate(payloads):
        offsets[i + 1] = end
        if payload is None:
            continue
        body = memoryview(payload)[header:]
        if len(payload) < header:
            raise _corrupt(view)
        magic, sequences[i], truncated[i], checksum = HEADER.unpack_from(payload)
        if magic != MAGIC or zlib.crc32(body) != checksum:
            raise _corrupt(view)
        if sums is not None:
            body = sums.cut(i, body)
        if len(body) % size:
            raise _corrupt(view)
        end += len(body) // size
        offsets[i + 1] = end
        parts.append(body)
    begins = np.array(offsets, np.int64)
    events = Events(
        keys=np.arange(m, dtype=np.int64),
        offsets=begins,
        records=np.frombuffer(b"".join(parts), "<i8").reshape(-1, wide),
        truncated_before=np.array(truncated, np.int64),
        tiles=None if sums is None else tiles_of(sums.layout, sums.made(), begins[:-1]),
    )
    return events, sequences


class _Sums:
    """Takes the tiles out of the values of several keys."""

    def __init__(self, layout: TileLayout) -> None:
        self.layout = layout
        self._codes: list[Int64] = []
        self._tiles: list[memoryview] = []
        self._hashes: list[memoryview] = []

    def cut(self, code: int, body: memoryview) -> memoryview:
        """Remember the tiles of a key and return what follows them: its events."""
        tiles, hashes = _SIZES.unpack_from(body)
        first = _SIZES.size + tiles * self.layout.width * 8
        end = first + hashes * 8
        self._codes.append(np.full(tiles, code))
        self._tiles.append(body[_SIZES.size : first])
        self._hashes.append(body[first:end])
        return body[end:]

    def made(self) -> Summaries:
        """Return the tiles of all keys."""
        return Summaries(
            codes=np.concatenate([np.zeros(0, np.int64), *self._codes]),
            records=np.frombuffer(b"".join(self._tiles), "<i8").reshape(-1, self.layout.width),
            sketches=np.frombuffer(b"".join(self._hashes), "<i8"),
        )


def _corrupt(view: WindowView) -> CorruptState:
    return CorruptState(
        f"the online features of {view.name} hold a value that was not written by this platform",
        hint="delete the keys headway:f:* of the view and run: headway features materialize",
    )
