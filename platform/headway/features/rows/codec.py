"""A row of a row view, packed: its numbers at fixed positions, its strings apart.

A body is [float64…][int64…][float32…][bool…][a null bit per int64 and bool]; a null float is NaN. The text of a view
with strings is, per string, [a length, 4 bytes, −1: null][UTF-8].
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headway.core.canonical import canonical, sha256
from headway.core.types import Int64
from headway.features.definitions import Entity, RowView
from headway.features.rows.scan import TAG_BITS

KINDS = {"float64": "<f8", "int64": "<i8", "timestamp": "<i8", "float32": "<f4", "bool": "|u1"}
KIND_ORDER = ("<f8", "<i8", "<f4", "|u1")
_NULLABLE = ("<i8", "|u1")
_I4 = struct.Struct("<i")

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
    tag: int
    """The view's number in the entity's values, `TAG_BITS` of a hash."""
    groups: tuple[Group, ...]
    nulls: int
    """Where the null bits begin."""
    fixed: int
    """Bytes of a body."""
    strings: tuple[int, ...]
    """Positions of the string columns in the view."""


class Row(NamedTuple):
    """A row of a view, packed."""

    rank: Rank
    body: bytes
    text: bytes | None
    """None: the view has no strings."""


def row_layout(view: RowView) -> RowLayout:
    """Return the compiled view."""
    groups: list[Group] = []
    offset = bits = 0
    for kind in KIND_ORDER:
        places = tuple(i for i, dtype in enumerate(view.dtypes) if KINDS.get(dtype) == kind)
        if places:
            names = tuple(view.features[place] for place in places)
            groups.append(Group(kind, offset, places, names, bits if kind in _NULLABLE else -1))
            offset += len(places) * np.dtype(kind).itemsize
            bits += len(places) if kind in _NULLABLE else 0
    tag = int(sha256(f"{view.name}@{shape_sha256(view)}".encode())[:6], 16) & ((1 << TAG_BITS) - 1)
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
    texts: list[bytes | None] = [None] * n
    if layout.strings:
        columns = [map(_text, values[place]) for place in layout.strings]
        texts = [b"".join(parts) for parts in zip(*columns, strict=True)]
    ranks = zip(event_time.tolist(), known_time.tolist(), ids.tolist(), strict=True)
    return [Row(*row) for row in zip(ranks, bodies, texts, strict=True)]


def _text(text: str | None) -> bytes:
    if text is None:
        return _I4.pack(-1)
    raw = text.encode()
    return _I4.pack(len(raw)) + raw
