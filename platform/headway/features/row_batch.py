"""From the packed values of a batch to columns: values of one shape are read as one matrix, the rest one by one.

The values of an entity's rows nearly always have the same shape, so that a batch is one join, one checksum each and one
strided copy per run of equal machine types, however many columns it has.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headway.core.errors import DefinitionError
from headway.core.types import Columns, Int64
from headway.features.definitions import Entity, RowView
from headway.features.row_codec import KNOWN_BYTES, RESIDUE, Group, RowLayout, Section, corrupt, row_layout, unpack
from headway.features.windows import Status

_Bytes = npt.NDArray[np.uint8]
_Bool = npt.NDArray[np.bool_]
_FOREVER = 2**61
"""Microseconds, 73,000 years."""
_NOWHEN = -(2**62)
"""event_time of a row that is not there: older than for ever."""
_FEW = 4
_SHAPES = 64
_TRUE = b"\x01"
_MISSING, _EXPIRED, _TRUNCATED = int(Status.MISSING), int(Status.EXPIRED), int(Status.TRUNCATED)


class _Run(NamedTuple):
    """Columns of one machine type of one view."""

    view: int
    group: Group
    first: int
    """Row of the first of them in the block of their type."""
    last: int


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Where everything lies in values of one shape."""

    structure: Int64
    """Positions of the bytes that tell the shape."""
    expected: bytes
    """What stands there."""
    stamps: Int64
    """Positions of the bytes of each view's event_time."""
    delays: tuple[tuple[int, int, int], ...]
    """(view, code, position) of each known_time that is not the event_time."""
    runs: tuple[tuple[str, int, int, int, int], ...]
    """(type, rows of the block from, to, bytes of the value from, to)."""
    blocks: tuple[tuple[str, Int64], ...]
    """(type, positions of the bytes of its whole block); empty where a view is absent."""
    bodies: tuple[tuple[int, int], ...]
    """(view, position) of each body with nulls or strings."""
    absent: tuple[int, ...]
    """Views that these values do not hold."""


class RowDecoder:
    """Decodes the rows of one entity for the views of one service."""

    def __init__(self, entity: Entity, views: Sequence[RowView], *, cutoff: bool = True) -> None:
        self._entity = entity
        self._cutoff = cutoff
        self.names = tuple(view.name for view in views)
        self._layouts = [row_layout(view) for view in views]
        self._places = {layout.tag: i for i, layout in enumerate(self._layouts)}
        if len(self._places) != len(views):
            raise DefinitionError("two row views have the same tag", field=entity.name, expected="rename one of them")
        self._ttl = np.array([[min(view.ttl or _FOREVER, _FOREVER)] for view in views], np.uint64)
        self._runs, self._columns = _runs(self._layouts)
        self._plain = tuple((kind, names) for kind, names in self._columns.items() if kind in _PLAIN)
        self._special = tuple(run for run in self._runs if run.group.kind not in _PLAIN)
        self._written = tuple(i for i, layout in enumerate(self._layouts) if layout.strings)
        self._shapes: dict[int, _Shape] = {}

    def decode(self, values: Sequence[bytes | None], position: Int64 | None, at: Int64) -> tuple[Columns, _Bytes]:
        """Return the features of n rows.

        Args:
            values: What is stored for each of m keys.
            position: int64[n], each row's key, −1: null; None: row i has key i, and m = n.
            at: int64[n], decision times.

        Returns:
            Columns in their declared types, int64 and bool with missing values as float64, strings as object; and
            uint8[views, n], `Status`: TRUNCATED where the row kept is newer than t and what was before it is gone.
            CorruptState where a value is not ours.
        """
        if not values:  # nothing but null keys
            values, position = (None,), np.full(len(at), -1)
        batch = self._batch(values)
        status, lost = self._status(batch, position, at)
        columns: Columns = {}
        if lost is None:
            for kind, names in self._plain:
                block = batch.blocks[kind]
                columns.update(zip(names, block if position is None else block[:, position], strict=True))
        for run in self._special if lost is None else self._runs:
            columns.update(_columns(run, batch, position, None if lost is None else lost[run.view]))
        for i in self._written:
            layout = self._layouts[i]
            for place, texts in zip(layout.strings, batch.texts[i], strict=True):
                own = texts if position is None else texts[position]
                if lost is not None:
                    own = own.copy()
                    own[lost[i]] = None
                columns[layout.view.features[place]] = own
        return columns, status

    def _status(self, batch: _Batch, position: Int64 | None, at: Int64) -> tuple[_Bytes, _Bool | None]:
        """Return uint8[views, n], and bool[views, n] of the rows without a value; None: all have one."""
        event, known = batch.event, batch.known
        if position is not None:
            event = event[:, position]
            known = event if known is batch.event else known[:, position]
        status = np.zeros(event.shape, np.uint8)
        bad = (at - event).view(np.uint64) > self._ttl  # an event after t has an age beyond every ttl
        if self._cutoff and known is not event:
            bad |= known > at
        if position is not None:
            bad |= position < 0
        if _TRUE not in bad.tobytes():
            return status, None
        status[bad] = _EXPIRED
        status[event > at] = _TRUNCATED
        if self._cutoff:
            status[known > at] = _TRUNCATED
        status[event == _NOWHEN] = _MISSING
        if position is not None:
            status[:, position < 0] = _MISSING
        return status, bad

    def _batch(self, values: Sequence[bytes | None]) -> _Batch:
        """Return what the values hold."""
        if None not in values:
            whole = self._uniform(values)  # type: ignore[arg-type]  # none is None
            if whole is not None:
                return whole
        batch = _Batch.missing(self._layouts, self._columns, len(values))
        by_size: dict[int, list[int]] = {}
        for i, value in enumerate(values):
            if value is not None:
                by_size.setdefault(len(value), []).append(i)
        for rows in by_size.values():
            part: list[Any] = [values[i] for i in rows]
            same = self._uniform(part) if len(rows) > _FEW else None
            if same is None:
                self._walk(batch, rows, part)
            else:
                batch.put(np.array(rows), same)
        return batch

    def _uniform(self, values: Sequence[bytes]) -> _Batch | None:
        """Decode values of one shape; None: they are not."""
        matrix = self._matrix(values)
        if matrix is None:
            return None
        shape = self._shape_of(matrix, values[0])
        if shape is None:
            return None
        event = matrix.take(shape.stamps, axis=1).view("<i8").T
        for i in shape.absent:
            event[i] = _NOWHEN
        known = event
        if shape.delays:
            known = event.copy()
            for i, code, start in shape.delays:
                late = matrix[:, start : start + KNOWN_BYTES[code]].view("<u4" if code == 1 else "<i8")[:, 0]
                known[i] = late + event[i] if code == 1 else late
        if len(values) <= _FEW and shape.blocks:
            blocks = {kind: matrix.take(places, axis=1).view(kind).T for kind, places in shape.blocks}
        else:
            blocks = {kind: np.empty((len(names), len(values)), kind) for kind, names in self._columns.items()}
            for kind, first, last, begin, end in shape.runs:
                blocks[kind][first:last] = matrix[:, begin:end].view(kind).T
        batch = _Batch(event, known, blocks, {}, {})
        if shape.bodies or shape.absent:
            self._exceptions(batch, shape, matrix, values)
        return batch

    def _exceptions(self, batch: _Batch, shape: _Shape, matrix: _Bytes, values: Sequence[bytes]) -> None:
        """Read null bits and strings."""
        for i, start in shape.bodies:
            layout = self._layouts[i]
            if layout.fixed > layout.nulls:
                batch.nulls[i] = matrix[:, start + layout.nulls : start + layout.fixed]
            if layout.strings:
                batch.texts[i] = np.full((len(layout.strings), len(values)), None, object)
                for row, value in enumerate(values):
                    batch.read_texts(i, row, value, start + layout.fixed)
        for i in shape.absent:
            batch.forget(i, self._layouts[i])

    def _shape_of(self, matrix: _Bytes, first: bytes) -> _Shape | None:
        """Return the shape that all rows of the matrix have, of which `first` is one; None: they have several."""
        shape = self._shapes.get(len(first))
        if shape is None or not _fits(shape, matrix):
            shape = self._shape(first)
            if not _fits(shape, matrix):
                return None
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            self._shapes[len(first)] = shape
        return shape

    def _matrix(self, values: Sequence[bytes]) -> _Bytes | None:
        """Return values of equal length as uint8[m, length]; None: their lengths differ."""
        m, size = len(values), len(values[0])
        if m > 1 and len(set(map(len, values))) > 1:
            return None
        if set(map(zlib.crc32, values)) != {RESIDUE}:
            raise corrupt(self._entity)
        return np.frombuffer(b"".join(values) if m > 1 else values[0], np.uint8).reshape(m, size)

    def _walk(self, batch: _Batch, rows: Sequence[int], values: Sequence[bytes]) -> None:
        """Decode values of any shape, one by one."""
        where: list[list[int]] = [[] for _ in self._layouts]
        bodies: list[list[bytes]] = [[] for _ in self._layouts]
        for row, value in zip(rows, values, strict=True):
            for section in unpack(value, self._entity):
                i = self._places.get(section.tag)
                if i is None:
                    continue
                batch.event[i, row], batch.known[i, row], _ = section.rank
                layout = self._layouts[i]
                where[i].append(row)
                bodies[i].append(value[section.body : section.body + layout.fixed])
                if layout.strings:
                    batch.read_texts(i, row, value, section.body + layout.fixed)
        for i, layout in enumerate(self._layouts):
            matrix = np.frombuffer(b"".join(bodies[i]), np.uint8).reshape(len(bodies[i]), layout.fixed)
            for run in self._runs:
                if run.view == i:
                    begin, end = _span(run)
                    batch.blocks[run.group.kind][run.first : run.last, where[i]] = (
                        matrix[:, begin:end].view(run.group.kind).T
                    )
            if layout.fixed > layout.nulls:
                batch.nulls[i][where[i]] = matrix[:, layout.nulls :]

    def _shape(self, value: bytes) -> _Shape:
        structure = [0]
        own: dict[int, Section] = {}
        for section in unpack(value, self._entity):
            wide = 6 if value[section.shape] >> 4 == 0xF and value[section.shape + 1] == 0xFF else 2
            structure += range(section.shape - 3, section.shape + wide)
            if section.tag in self._places:
                own[self._places[section.tag]] = section
        stamps = [own[i].stamp if i in own else 1 for i in range(len(self._layouts))]
        runs = tuple(_joined(self._runs, own))
        places = {kind: [np.arange(run[3], run[4]) for run in runs if run[0] == kind] for kind in self._columns}
        whole = len(own) == len(self._layouts)
        return _Shape(
            structure=np.array(structure, np.int64),
            expected=bytes(value[i] for i in structure),
            stamps=(np.array(stamps, np.int64)[:, None] + np.arange(8)).ravel(),
            delays=tuple((i, each.known, each.stamp + 8) for i, each in own.items() if each.known),
            runs=runs,
            blocks=tuple((kind, np.concatenate(parts)) for kind, parts in places.items()) if whole else (),
            bodies=tuple(
                (i, each.body)
                for i, each in own.items()
                if self._layouts[i].strings or self._layouts[i].fixed > self._layouts[i].nulls
            ),
            absent=tuple(i for i in range(len(self._layouts)) if i not in own),
        )


@dataclass(slots=True)
class _Batch:
    """What m keys hold."""

    event: Int64
    """int64[views, m]."""
    known: Int64
    """int64[views, m]; `event` itself where all are known when they happen."""
    blocks: dict[str, npt.NDArray[Any]]
    """Machine type → [columns, m]."""
    nulls: dict[int, _Bytes]
    """View → uint8[m, bytes of null bits]."""
    texts: dict[int, npt.NDArray[np.object_]]
    """View → object[strings, m]."""

    @classmethod
    def missing(cls, layouts: Sequence[RowLayout], columns: dict[str, tuple[str, ...]], m: int) -> _Batch:
        """Return m keys that hold nothing."""
        event = np.full((len(layouts), m), _NOWHEN, np.int64)
        batch = cls(event, event.copy(), {k: np.zeros((len(names), m), k) for k, names in columns.items()}, {}, {})
        for i, layout in enumerate(layouts):
            batch.forget(i, layout)
        return batch

    def forget(self, view: int, layout: RowLayout) -> None:
        """Give a view that is not there null bits and strings."""
        m = self.event.shape[1]
        if layout.fixed > layout.nulls:
            self.nulls[view] = np.zeros((m, layout.fixed - layout.nulls), np.uint8)
        if layout.strings:
            self.texts[view] = np.full((len(layout.strings), m), None, object)

    def put(self, rows: Int64, part: _Batch) -> None:
        """Take what some of the keys hold."""
        self.event[:, rows] = part.event
        self.known[:, rows] = part.known
        for kind, block in part.blocks.items():
            self.blocks[kind][:, rows] = block
        for view, nulls in part.nulls.items():
            self.nulls[view][rows] = nulls
        for view, texts in part.texts.items():
            self.texts[view][:, rows] = texts

    def read_texts(self, view: int, row: int, value: bytes, at: int) -> None:
        """Read the strings of a body."""
        for texts in self.texts[view]:
            size = int.from_bytes(value[at : at + 4], "little", signed=True)
            at += 4
            texts[row] = None if size < 0 else value[at : at + size].decode()
            at += max(size, 0)


_PLAIN = ("<f8", "<f4")
"""Types whose nulls are NaN."""


def _runs(layouts: Sequence[RowLayout]) -> tuple[tuple[_Run, ...], dict[str, tuple[str, ...]]]:
    """Return the runs of all views, and the features of each machine type in the order of its block."""
    runs: list[_Run] = []
    columns: dict[str, tuple[str, ...]] = {}
    for i, layout in enumerate(layouts):
        for group in layout.groups:
            before = columns.get(group.kind, ())
            columns[group.kind] = before + group.names
            runs.append(_Run(i, group, len(before), len(columns[group.kind])))
    return tuple(runs), columns


def _span(run: _Run) -> tuple[int, int]:
    """Return where a run's bytes are in its body."""
    return run.group.offset, run.group.offset + np.dtype(run.group.kind).itemsize * len(run.group.places)


def _joined(runs: Sequence[_Run], own: dict[int, Section]) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield what to copy where, for the views that the value holds."""
    for run in runs:
        if run.view in own:
            begin, end = _span(run)
            yield run.group.kind, run.first, run.last, own[run.view].body + begin, own[run.view].body + end


def _fits(shape: _Shape, matrix: _Bytes) -> bool:
    return matrix.take(shape.structure, axis=1).tobytes() == shape.expected * len(matrix)


def _columns(run: _Run, batch: _Batch, position: Int64 | None, lost: _Bool | None) -> Columns:
    """Return the columns of a run; `lost` are rows without a value."""
    group = run.group
    block = batch.blocks[group.kind][run.first : run.last]
    if position is not None:
        block = block[:, position]
    if group.bit < 0:
        if lost is not None:
            block[:, lost] = np.nan
        return dict(zip(group.names, block, strict=True))
    bits = np.unpackbits(batch.nulls[run.view], axis=1, bitorder="little", count=group.bit + len(group.places))
    empty = bits[:, group.bit :].T.astype(np.bool_)
    if position is not None:
        empty = empty[:, position]
    if lost is not None:
        empty |= lost
    columns: Columns = {}
    for name, column, gone in zip(group.names, block, empty, strict=True):
        plain = column.astype(np.bool_) if group.kind == "|u1" else column
        columns[name] = np.where(gone, np.nan, plain.astype(np.float64)) if gone.any() else plain
    return columns
