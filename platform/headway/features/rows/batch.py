"""From the packed values of a batch to columns: one compiled walk, then one array per machine type.

Status is told at once, columns are made when they are asked for: that takes longer than everything else for one key.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headway.core.errors import DefinitionError
from headway.core.types import Columns, Int64
from headway.features.definitions import Entity, RowView
from headway.features.rows.codec import row_layout
from headway.features.rows.glance import Directory, Glance
from headway.features.rows.plan import RowPlan, Run
from headway.features.rows.scan import EVENT, KNOWN, WHERE, compiled
from headway.features.rows.value import RESIDUE, corrupt
from headway.features.status import Status

_Bytes = npt.NDArray[np.uint8]
_Bool = npt.NDArray[np.bool_]
_FOREVER = 2**61
"""Microseconds, 73,000 years."""
_NOWHEN = -(2**62)
"""event_time of a row that is not there: older than for ever."""
_TRUE = b"\x01"
_FLOATS = ("<f8", "<f4")
"""Types whose nulls are NaN."""


class Rows(NamedTuple):
    """What is known of n rows."""

    status: dict[str, _Bytes]
    """View name → uint8[n], `Status`: TRUNCATED where the row kept is newer than t and what was before it is gone."""
    columns: Callable[[], Columns]
    """Returns the columns in their declared types, int64 and bool with missing values as float64, strings as object."""


class _Batch(NamedTuple):
    """What m keys hold."""

    times: Int64
    """int64[3, views, m], planes of `scan`."""
    blocks: dict[str, npt.NDArray[Any]]
    """Machine type → [columns, m]."""
    nulls: dict[int, _Bytes]
    """View → uint8[m, bytes of null bits]."""
    texts: dict[int, npt.NDArray[np.object_]]
    """View → object[strings, m]."""


class RowDecoder:
    """Decodes the rows of one entity for the views of one service."""

    def __init__(self, entity: Entity, views: Sequence[RowView], *, cutoff: bool = True) -> None:
        self._entity = entity
        self._cutoff = cutoff
        self.names = tuple(view.name for view in views)
        self._layouts = [row_layout(view) for view in views]
        if len({layout.tag for layout in self._layouts}) != len(views):
            raise DefinitionError("two row views have the same tag", field=entity.name, expected="rename one of them")
        ttl = [min(view.ttl or _FOREVER, _FOREVER) for view in views]
        self._ttl = np.array(ttl, np.uint64)[:, None]
        self._plan = RowPlan(self._layouts)
        self._scan = compiled()  # loaded here, so that no request waits for it
        self._glance = Glance(self._layouts, min(ttl), cutoff=cutoff)
        present = np.zeros((len(views), 1), np.uint8)
        present.flags.writeable = False
        self._present = dict(zip(self.names, present, strict=True))

    def decode(self, values: Sequence[bytes | None], position: Int64 | None, at: Int64) -> Rows:
        """Return the features of n rows.

        Args:
            values: What is stored for each of m keys.
            position: int64[n], each row's key, −1: null; None: row i has key i, and m = n.
            at: int64[n], decision times.

        CorruptState where a value is not ours.
        """
        if position is None and len(values) == 1 and (value := values[0]) is not None:
            if zlib.crc32(value) != RESIDUE:
                raise corrupt(self._entity)
            found = self._glance.look(value, at.item())
            if found is not None:
                return Rows(self._present.copy(), partial(self._plainly, value, found))
        if not values:  # nothing but null keys
            values, position = (None,), np.full(len(at), -1)
        batch = self._batch(values)
        status, lost = self._status(batch.times, position, at)
        columns = partial(self._columns, batch, position, lost)
        return Rows(dict(zip(self.names, status, strict=True)), columns)

    def _plainly(self, value: bytes, found: Directory) -> Columns:
        """Return the columns of one key of which all views are PRESENT."""
        columns = self._glance.columns(value, found)
        return self._columns(self._batch((value,)), None, None) if columns is None else columns

    def _status(self, times: Int64, position: Int64 | None, at: Int64) -> tuple[_Bytes, _Bool | None]:
        """Return uint8[views, n], and bool[views, n] of the rows without a value; None: all have one."""
        if position is not None:
            times = times[:, :, position]
        event, known = times[EVENT], times[KNOWN]
        status = np.zeros(event.shape, np.uint8)
        bad = (at - event).view(np.uint64) > self._ttl  # an event after t has an age beyond every ttl
        if self._cutoff:
            bad |= known > at
        if position is not None:
            bad |= position < 0
        if _TRUE not in bad.tobytes():
            return status, None
        status[bad] = Status.EXPIRED
        status[event > at] = Status.TRUNCATED
        if self._cutoff:
            status[known > at] = Status.TRUNCATED
        status[event == _NOWHEN] = Status.MISSING
        if position is not None:
            status[:, position < 0] = Status.MISSING
        return status, bad

    def _batch(self, values: Sequence[bytes | None]) -> _Batch:
        """Return what the values hold."""
        m, plan, layouts = len(values), self._plan, self._layouts
        present = [value for value in values if value is not None]
        if any(checksum != RESIDUE for checksum in set(map(zlib.crc32, present))):
            raise corrupt(self._entity)
        parts = present if len(present) == m else [value or b"" for value in values]
        data = np.frombuffer(b"".join(parts), np.uint8)
        offsets = np.array(list(accumulate(map(len, parts), initial=0)), np.int64)
        times = np.full((3, len(layouts), m), _NOWHEN, np.int64)
        bodies = np.zeros((m, plan.width), np.uint8)
        if self._scan(data, offsets, plan.views, plan.moves, times, bodies) >= 0:
            raise corrupt(self._entity)
        texts = {
            i: self._texts(len(layout.strings), parts, times[WHERE, i].tolist())
            for i, layout in enumerate(layouts)
            if layout.strings
        }
        blocks = {kind: bodies[:, begin:end].view(kind).T.copy() for kind, (begin, end) in plan.blocks.items()}
        nulls = {i: bodies[:, begin:end] for i, (begin, end) in plan.nulls.items()}
        return _Batch(times, blocks, nulls, texts)

    def _texts(self, strings: int, values: Sequence[bytes], where: Sequence[int]) -> npt.NDArray[np.object_]:
        """Return object[strings, m], read where each value's text is."""
        texts = np.full((strings, len(values)), None, object)
        for key, (value, at) in enumerate(zip(values, where, strict=True)):
            if at < 0:
                continue
            end = at + int.from_bytes(value[at - 4 : at], "little")
            for place in range(strings):
                size = int.from_bytes(value[at : at + 4], "little", signed=True)
                at += 4  # noqa: PLW2901  # a cursor
                if at + max(size, 0) > end:
                    raise corrupt(self._entity)
                if size >= 0:
                    try:
                        texts[place, key] = value[at : at + size].decode()
                    except UnicodeDecodeError:
                        raise corrupt(self._entity) from None
                    at += size  # noqa: PLW2901  # a cursor
            if at != end:
                raise corrupt(self._entity)
        return texts

    def _columns(self, batch: _Batch, position: Int64 | None, lost: _Bool | None) -> Columns:
        columns: Columns = {}
        if lost is None:
            for kind, names in self._plan.names.items():
                if kind in _FLOATS:
                    block = batch.blocks[kind]
                    columns.update(zip(names, block if position is None else block[:, position], strict=True))
        for run in self._plan.runs:
            if lost is not None or run.group.kind not in _FLOATS:
                columns.update(_columns(run, batch, position, None if lost is None else lost[run.view]))
        for i, texts in batch.texts.items():
            layout = self._layouts[i]
            for place, column in zip(layout.strings, texts, strict=True):
                own = column if position is None else column[position]
                if lost is not None:
                    own = own.copy()
                    own[lost[i]] = None
                columns[layout.view.features[place]] = own
        return columns


def _columns(run: Run, batch: _Batch, position: Int64 | None, lost: _Bool | None) -> Columns:
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
