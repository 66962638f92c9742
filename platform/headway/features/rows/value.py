"""The packed value of one key of one entity: the newest row of each of its row views.

Layout, little-endian, everything by ascending tag: magic (1 byte), directory, ranks, bodies, texts, CRC-32 of all that
(4 bytes). The directory is [tag, 3 bytes]… [shape, 2 bytes][length of a body, 4 bytes where the shape says so] for each
run of views of one shape; the highest bit of a tag says that the shape follows. A rank is
[event_time − predecessor's, 0, 3 or 5 bytes, or event_time, 7][known_time − event_time − predecessor's, 0, 3 or 5, or
known_time, 7][id, 4, 6 or 8]; a view may have its predecessor's, as views of one source have. Bodies and texts are
those of `codec`; a text, only of views with strings, has its length before it (4 bytes).

All views of an entity share one value because a key costs the server more than a short row, and a read less. What tells
the shape stands first, so that a reader compares one prefix and finds the bodies side by side.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from headway.core.errors import CorruptState, InvalidValue
from headway.core.times import EVENT_TIME
from headway.features.definitions import Entity
from headway.features.rows.codec import Rank, Row
from headway.features.rows.scan import (
    CLOSING,
    END,
    EVENT_SHIFT,
    ID_BYTES,
    ID_SHIFT,
    KNOWN_SHIFT,
    LONG,
    MAGIC,
    SEAL,
    TEXT,
    TIME_BYTES,
)  # fmt: skip

RESIDUE = 0x2144DF1C
"""CRC-32 of any bytes followed by their own CRC-32, little-endian: what is whole can be told without cutting it."""
_WHOLE = len(TIME_BYTES) - 1
_MAGIC = bytes([MAGIC])
_U4 = struct.Struct("<I")


class Slot(NamedTuple):
    """What the directory says of a view."""

    tag: int
    event: int
    """Code of the event_time, an index of `TIME_BYTES`."""
    known: int
    """Code of the known_time."""
    id: int
    """Code of the id, an index of `ID_BYTES`."""
    length: int
    """Bytes of the body."""
    text: bool
    """Whether the view has strings."""


def directory(value: bytes) -> tuple[list[Slot], int]:
    """Return what the directory says, and where it ends; IndexError where it does not."""
    slots: list[Slot] = []
    tags: list[int] = []
    at = 1
    while True:
        tag = _number(value, at, 3)
        tags.append(tag & ~CLOSING)
        at += 3
        if not tag & CLOSING:
            continue
        shape = _number(value, at, 2)
        at += 2
        length = shape & LONG
        if length == LONG:
            length = _number(value, at, 4)
            at += 4
        codes = (shape >> EVENT_SHIFT & 3, shape >> KNOWN_SHIFT & 3, shape >> ID_SHIFT & 3)
        slots += [Slot(each, *codes, length, bool(shape & TEXT)) for each in tags]
        tags = []
        if shape & END:
            return slots, at


def unpack(value: bytes, entity: Entity) -> dict[int, Row]:
    """Return the rows of a value by tag; CorruptState where it is not what `replace` wrote."""
    if value[:1] != _MAGIC or zlib.crc32(value) != RESIDUE:
        raise corrupt(entity)
    try:
        slots, at = directory(value)
        ranks: list[Rank] = []
        for slot in slots:
            rank, at = _rank_at(value, at, slot, ranks[-1] if ranks else None)
            ranks.append(rank)
        bodies: list[bytes] = []
        for slot in slots:
            bodies.append(value[at : at + slot.length])
            at += slot.length
        texts: list[bytes | None] = []
        for slot in slots:
            size = _number(value, at, 4) if slot.text else 0
            at += 4 * slot.text
            texts.append(value[at : at + size] if slot.text else None)
            at += size
    except IndexError:
        raise corrupt(entity) from None
    tags = [slot.tag for slot in slots]
    if at != len(value) - SEAL or any(a >= b for a, b in pairwise(tags)):
        raise corrupt(entity)
    return dict(zip(tags, map(Row, ranks, bodies, texts), strict=True))


def replace(value: bytes | None, entity: Entity, tag: int, row: Row | None) -> tuple[bytes | None, bool]:
    """Put a row into a value where it is newer than the one there; None: take the tag's row out.

    Returns:
        The new value (`b""`: nothing is left; None: it stays as it is), and whether the row is its only one.
    """
    rows = {} if value is None else unpack(value, entity)
    own = rows.pop(tag, None)
    if row is None:
        if own is None:
            return None, False
        return (_sealed(rows) if rows else b""), False
    if own is not None and row.rank <= own.rank:
        return None, False
    return _sealed({**rows, tag: row}), not rows


def corrupt(entity: Entity) -> CorruptState:
    """Return the error for a value that is not ours."""
    return CorruptState(
        f"the online rows of {entity.name} hold a value that was not written by this platform",
        hint=f"delete the keys headway:r:{entity.name}:* and run: headway features materialize",
    )


def _number(value: bytes, at: int, size: int, *, signed: bool = False) -> int:
    if at + size > len(value):
        raise IndexError(at)
    return int.from_bytes(value[at : at + size], "little", signed=signed)


def _rank_at(value: bytes, at: int, slot: Slot, before: Rank | None) -> tuple[Rank, int]:
    """Return a rank and where it ends."""
    if slot.id == 0:
        if before is None:
            raise IndexError(at)
        return before, at
    event = _number(value, at, TIME_BYTES[slot.event], signed=True)
    at += TIME_BYTES[slot.event]
    if slot.event < _WHOLE:
        event += before[0] if before else 0
    known = _number(value, at, TIME_BYTES[slot.known], signed=True)
    at += TIME_BYTES[slot.known]
    if slot.known < _WHOLE:
        known += event + _lateness(before)
    identity = _number(value, at, ID_BYTES[slot.id], signed=True)
    return (event, known, identity), at + ID_BYTES[slot.id]


def _sealed(rows: Mapping[int, Row]) -> bytes:
    """Return the value of the rows by tag."""
    tags = sorted(rows)
    shapes: list[tuple[int, int]] = []
    stamps: list[bytes] = []
    before: Rank | None = None
    for tag in tags:
        rank, body, text = rows[tag]
        stamp, codes = (b"", 0) if rank == before else _stamp(rank, before)
        shapes.append((codes | TEXT * (text is not None), len(body)))
        stamps.append(stamp)
        before = rank
    parts = [_MAGIC]
    for i, tag in enumerate(tags):
        end = i + 1 == len(tags)
        if end or shapes[i] != shapes[i + 1]:
            parts += [(tag | CLOSING).to_bytes(3, "little"), _shape(*shapes[i], end=end)]
        else:
            parts.append(tag.to_bytes(3, "little"))
    parts += stamps
    parts += [rows[tag].body for tag in tags]
    parts += [_U4.pack(len(text)) + text for tag in tags if (text := rows[tag].text) is not None]
    whole = b"".join(parts)
    return whole + _U4.pack(zlib.crc32(whole))


def _shape(bits: int, length: int, *, end: bool) -> bytes:
    """Return the shape of a run of views."""
    short = (bits | min(length, LONG) | END * end).to_bytes(2, "little")
    return short + _U4.pack(length) if length >= LONG else short


def _stamp(rank: Rank, before: Rank | None) -> tuple[bytes, int]:
    """Return a rank's bytes and its codes in the shape."""
    event, known, identity = rank
    first, event_code = _time(event, before[0] if before else 0)
    second, known_code = _time(known, event + _lateness(before))
    code = next(code for code in (1, 2, 3) if _fits(identity, ID_BYTES[code]))
    third = identity.to_bytes(ID_BYTES[code], "little", signed=True)
    return first + second + third, event_code << EVENT_SHIFT | known_code << KNOWN_SHIFT | code << ID_SHIFT


def _lateness(rank: Rank | None) -> int:
    """Return how much later than it happened the predecessor was known."""
    return rank[1] - rank[0] if rank else 0


def _time(time: int, before: int) -> tuple[bytes, int]:
    """Return a time's bytes and code."""
    for code in range(_WHOLE):
        if _fits(time - before, TIME_BYTES[code]):
            return (time - before).to_bytes(TIME_BYTES[code], "little", signed=True), code
    if not _fits(time, TIME_BYTES[_WHOLE]):
        raise InvalidValue(EVENT_TIME, f"{time} µs is more than a thousand years from 1970", hint="microseconds in UTC")
    return time.to_bytes(TIME_BYTES[_WHOLE], "little", signed=True), _WHOLE


def _fits(number: int, size: int) -> bool:
    """Return whether so many bytes hold the number."""
    return number == 0 if size == 0 else -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1
