"""The packed value of one key of one entity: a section per row view, each the newest row of that view.

Layout, little-endian: magic (1 byte), sections by ascending tag, CRC-32 of all before it (4 bytes). A section is
[tag, 3 bytes][shape, 2 bytes][length, 4 bytes where the shape says so][rank][body]. A rank is [event_time, 8]
[known_time − event_time, 0 or 4, or known_time, 8][id, 4 or 8]; a section without one has its predecessor's, as views
of one source have. A body is [float64…][int64…][float32…][bool…][a null bit per int64 and bool][per string a length of
4 bytes and its UTF-8]; a null float is NaN, a null string has the length −1.

All views of an entity share one value because a key costs the server more than a short row, and a read less.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headway.core.canonical import canonical, sha256
from headway.core.errors import CorruptState
from headway.core.types import Int64
from headway.features.definitions import Entity, RowView

MAGIC = b"\xd1"
RESIDUE = 0x2144DF1C
"""CRC-32 of any bytes followed by their own CRC-32, little-endian: what is whole can be told without cutting it."""
KNOWN_BYTES = (0, 4, 8)
"""Bytes of known_time by the shape's two lowest bits: as event_time, so many microseconds later, absolute."""
ID_BYTES = (4, 8)
"""Bytes of the id by the shape's third bit; the fourth says that the rank is the predecessor's."""
LONG = 0xFFF
"""A body of this length or more has its length in four bytes of its own."""
KINDS = {"float64": "<f8", "int64": "<i8", "timestamp": "<i8", "float32": "<f4", "bool": "|u1"}
_ORDER = ("<f8", "<i8", "<f4", "|u1")
_NULLABLE = ("<i8", "|u1")
_HEAD = struct.Struct("<3sH")
_SAME = 8
_U4, _I4, _I8 = struct.Struct("<I"), struct.Struct("<i"), struct.Struct("<q")

Rank = tuple[int, int, int]
"""event_time, known_time, id of a row: the greatest counts."""


def row_prefix(entity: Entity) -> bytes:
    """Return what the keys of an entity's rows begin with."""
    return b"headway:r:%b:" % entity.name.encode()


def shape_sha256(view: RowView) -> str:
    """Return the hash of what decides a row's bytes: another shape gets another tag, so that versions can coexist."""
    columns = [list(pair) for pair in zip(view.columns, view.dtypes, strict=True)]
    return sha256(canonical({"source": view.source.name, "entity": view.entity.describe()["key"], "rows": columns}))


class Group(NamedTuple):
    """The columns of one machine type, neighbours in the body."""

    kind: str
    offset: int
    """Where it begins in the body."""
    places: tuple[int, ...]
    """Positions of its columns in the view."""
    names: tuple[str, ...]
    """Their features."""
    bit: int
    """Number of the first column's null bit, −1: nulls are NaN."""


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """A row view compiled into byte positions."""

    view: RowView
    tag: bytes
    groups: tuple[Group, ...]
    nulls: int
    """Where the null bits begin."""
    fixed: int
    """Bytes before the first string."""
    strings: tuple[int, ...]
    """Positions of the string columns in the view."""


class Section(NamedTuple):
    """Where a section lies in its value."""

    tag: bytes
    rank: Rank
    shape: int
    """Offset of the shape."""
    stamp: int
    """Offset of the event_time: its own or the one it shares."""
    known: int
    """Code of the known_time, an index of `KNOWN_BYTES`."""
    body: int
    end: int


class Row(NamedTuple):
    """A row of a view, packed."""

    rank: Rank
    body: bytes


def row_layout(view: RowView) -> RowLayout:
    """Return the compiled view."""
    groups: list[Group] = []
    offset = bits = 0
    for kind in _ORDER:
        places = tuple(i for i, dtype in enumerate(view.dtypes) if KINDS.get(dtype) == kind)
        if places:
            names = tuple(view.features[place] for place in places)
            groups.append(Group(kind, offset, places, names, bits if kind in _NULLABLE else -1))
            offset += len(places) * np.dtype(kind).itemsize
            bits += len(places) if kind in _NULLABLE else 0
    tag = bytes.fromhex(sha256(f"{view.name}@{shape_sha256(view)}".encode())[:6])
    return RowLayout(
        view=view,
        tag=tag,
        groups=tuple(groups),
        nulls=offset,
        fixed=offset + (bits + 7) // 8,
        strings=tuple(i for i, dtype in enumerate(view.dtypes) if dtype == "string"),
    )


def encode(
    layout: RowLayout,
    event_time: Int64,
    known_time: Int64,
    ids: Int64,
    values: Sequence[npt.NDArray[Any]],
    nulls: Mapping[int, npt.NDArray[np.bool_]],
) -> list[Row]:
    """Return n rows, packed.

    Args:
        layout: Of the view.
        event_time: int64[n].
        known_time: int64[n].
        ids: int64[n].
        values: One array[n] per column of the view, strings as object with None.
        nulls: Position of an int64 or bool column → its null rows; what is not there has none.
    """
    n = len(event_time)
    fixed = np.zeros((n, layout.fixed), np.uint8)
    flags: list[npt.NDArray[np.bool_]] = []
    for group in layout.groups:
        block = np.stack([values[place].astype(group.kind) for place in group.places], axis=1)
        width = block.dtype.itemsize * len(group.places)
        fixed[:, group.offset : group.offset + width] = block.view(np.uint8).reshape(n, width)
        if group.bit >= 0:
            flags += [nulls.get(place, np.zeros(n, np.bool_)) for place in group.places]
    if flags:
        fixed[:, layout.nulls :] = np.packbits(np.stack(flags, axis=1), axis=1, bitorder="little")
    whole = fixed.tobytes()
    bodies = [whole[i : i + layout.fixed] for i in range(0, len(whole), layout.fixed)] if layout.fixed else [b""] * n
    for place in layout.strings:
        bodies = [body + _text(text) for body, text in zip(bodies, values[place], strict=True)]
    ranks = zip(event_time.tolist(), known_time.tolist(), ids.tolist(), strict=True)
    return [Row(rank, body) for rank, body in zip(ranks, bodies, strict=True)]


def unpack(value: bytes, entity: Entity) -> list[Section]:
    """Return the sections of a value; CorruptState where it is not what `replace` wrote."""
    end = len(value) - _U4.size
    if value[:1] != MAGIC or zlib.crc32(value) != RESIDUE:
        raise corrupt(entity)
    sections: list[Section] = []
    at = 1
    try:
        while at < end:
            section = _section_at(value, at, sections)
            sections.append(section)
            at = section.end
    except (struct.error, IndexError):
        raise corrupt(entity) from None
    if at != end:
        raise corrupt(entity)
    return sections


def replace(value: bytes | None, entity: Entity, tag: bytes, row: Row | None) -> tuple[bytes | None, bool]:
    """Put a row into a value where it is newer than the one there; None: take the tag's row out.

    Returns:
        The new value (`b""`: nothing is left; None: it stays as it is), and whether the row is its only one.
    """
    sections = [] if value is None else unpack(value, entity)
    rows = {each.tag: Row(each.rank, value[each.body : each.end]) for each in sections} if value is not None else {}
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


def _section_at(value: bytes, start: int, before: Sequence[Section]) -> Section:
    tag, shape = _HEAD.unpack_from(value, start)
    at = start + _HEAD.size
    size = shape >> 4
    if size == LONG:
        size = _U4.unpack_from(value, at)[0]
        at += _U4.size
    if shape & _SAME:
        _, rank, _, stamp, code, *_ = before[-1]
        return Section(tag, rank, start + len(tag), stamp, code, at, at + size)
    stamp = at
    code, wide = shape & 3, shape >> 2 & 1
    event: int = _I8.unpack_from(value, at)[0]
    at += _I8.size
    known = event
    if code:
        known = _U4.unpack_from(value, at)[0] + event if code == 1 else _I8.unpack_from(value, at)[0]
        at += KNOWN_BYTES[code]
    identity = (_I4, _I8)[wide].unpack_from(value, at)[0]
    at += ID_BYTES[wide]
    return Section(tag, (event, known, identity), start + len(tag), stamp, code, at, at + size)


def _sealed(rows: Mapping[bytes, Row]) -> bytes:
    """Return the value of the rows by tag."""
    parts = [MAGIC]
    before: Rank | None = None
    for tag in sorted(rows):
        rank, body = rows[tag]
        stamp, shape = (b"", _SAME) if rank == before else _stamp(rank)
        size = len(body)
        parts.append(_HEAD.pack(tag, shape | min(size, LONG) << 4))
        if size >= LONG:
            parts.append(_U4.pack(size))
        parts += [stamp, body]
        before = rank
    whole = b"".join(parts)
    return whole + _U4.pack(zlib.crc32(whole))


def _stamp(rank: Rank) -> tuple[bytes, int]:
    """Return a rank's bytes and what the shape says of them."""
    event, known, identity = rank
    later = known - event
    if later == 0:
        code, stamp = 0, _I8.pack(event)
    elif 0 < later < 2**32:
        code, stamp = 1, _I8.pack(event) + _U4.pack(later)
    else:
        code, stamp = 2, _I8.pack(event) + _I8.pack(known)
    wide = 0 if -(2**31) <= identity < 2**31 else 1
    return stamp + (_I4, _I8)[wide].pack(identity), code | wide << 2


def _text(text: str | None) -> bytes:
    if text is None:
        return _I4.pack(-1)
    raw = text.encode()
    return _I4.pack(len(raw)) + raw
