"""Reads a service's view features for a request batch: one round trip for all keys of all views.

The read plan is compiled once per service; distinct keys are fetched once, however many rows share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.core.types import Columns, Int64
from headway.features.definitions import AliasedView, Entity, FeatureService, RowView, View
from headway.features.entities import key_text
from headway.features.link import RedisLink
from headway.features.online_keys import watermark_key
from headway.features.rows.batch import RowDecoder, Rows
from headway.features.rows.codec import row_prefix
from headway.features.windows import codec
from headway.features.windows.columns import ViewPlan, plan_of, window_columns


class OnlineRows(msgspec.Struct, kw_only=True):
    """View features of n rows, before transformations."""

    parts: list[Callable[[], Columns]]
    """Make the columns."""
    status: dict[str, npt.NDArray[np.uint8]]
    """View name → `Status` per row, not to be written to. The store keeps a row view's newest row only: where that is
    newer than t (or known later, with the cutoff on), the row as of t cannot be told and the status is TRUNCATED."""
    watermark: dict[str, int]
    """View name → largest known_time up to which it is complete; 0 where none was set."""
    _made: Columns | None = None

    @property
    def columns(self) -> Columns:
        """Feature name → one value per row, made when first asked for.

        Of window views float32[n]; of row views the declared type, int64 and bool with missing values as float64,
        strings as object with None.
        """
        if self._made is None:
            self._made = {}
            for part in self.parts:
                self._made.update(part())
        return self._made


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one key of an entity is fetched for."""

    key: int
    """Position among the service's keys."""
    prefix: bytes
    plan: ViewPlan | RowDecoder
    views: tuple[str, ...]
    """The views, or aliases, that read it."""
    renamed: Mapping[str, str]
    """Feature → its name where an alias reads it; empty: none does."""
    _heads: dict[int, bytes] = field(default_factory=dict)

    def bulks(self, names: Sequence[bytes]) -> list[bytes]:
        """Return the keys of these names as arguments in the RESP protocol."""
        heads, prefix = self._heads, self.prefix  # what stands before a name depends on its length only
        try:
            return [heads[len(name)] + name + b"\r\n" for name in names]
        except KeyError:
            heads.update({size: b"$%d\r\n%b" % (len(prefix) + size, prefix) for size in set(map(len, names))})
        return [heads[len(name)] + name + b"\r\n" for name in names]


class OnlineReader:
    """The compiled read plan of one feature service; use it from one event loop."""

    def __init__(self, service: FeatureService, url: str, *, timeout_s: float = 0.5, cutoff: bool = True) -> None:
        self._link = RedisLink(url, timeout_s=timeout_s)
        self._cutoff = cutoff
        self._keys = tuple(dict.fromkeys(view.keys for view in service.views))
        self._parts = _parts(service, self._keys, cutoff)
        self._views = [view.name for view in service.views]
        self._stored = [view.name for view in service.stored]
        self._mixed = [name for part in self._parts for name in part.views] != self._views
        self._heads: dict[int, bytes] = {}
        self._marks: tuple[list[bytes | None], dict[str, int]] = ([], {})
        self._watermarks = b"".join(_bulk(watermark_key(view)) for view in service.stored)

    async def read(self, keys: Columns, at: Int64) -> OnlineRows:
        """Return the features of n rows as of their decision times.

        Args:
            keys: Key column → n keys: int64, or object for strings and nulls.
            at: int64[n], UTC microseconds.

        Raises InvalidValue for a missing key column, Unavailable when the store is away or late, CorruptState for a
        value that is not the platform's.
        """
        n, views = len(at), len(self._stored)
        if len(self._parts) == 1:  # nothing to put together
            part = self._parts[0]
            position, distinct = _distinct(self._keys[0], keys, n)
            request = self._head(len(distinct)) + b"".join(part.bulks(distinct))
            reply: list[bytes | None] = await self._link.call(request)
            rows = self._decode(part, reply[views:], position, at)
            return OnlineRows(parts=[rows.columns], status=rows.status, watermark=self._watermark(reply[:views]))
        found = [_distinct(columns, keys, n) for columns in self._keys]
        names = [name for part in self._parts for name in part.bulks(found[part.key][1])]
        reply = await self._link.call(self._head(len(names)) + b"".join(names))
        begin = views
        columns: list[Callable[[], Columns]] = []
        status: dict[str, npt.NDArray[np.uint8]] = {}
        for part in self._parts:
            position, distinct = found[part.key]
            end = begin + len(distinct)
            rows = self._decode(part, reply[begin:end], position, at)
            columns.append(rows.columns)
            status.update(rows.status)
            begin = end
        if self._mixed:
            status = {name: status[name] for name in self._views}
        return OnlineRows(parts=columns, status=status, watermark=self._watermark(reply[:views]))

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    def _watermark(self, marks: list[bytes | None]) -> dict[str, int]:
        """Return the views' watermarks; most reads find those of the read before."""
        if marks != self._marks[0]:
            found = {name: int(mark or 0) for name, mark in zip(self._stored, marks, strict=True)}
            self._marks = (marks, found)
        return self._marks[1].copy()

    def _head(self, names: int) -> bytes:
        """Return the request up to so many keys, the watermarks before them."""
        head = self._heads.get(names)
        if head is None:
            head = self._heads[names] = b"*%d\r\n$4\r\nMGET\r\n" % (1 + len(self._stored) + names) + self._watermarks
        return head

    def _decode(self, part: _Part, values: Sequence[bytes | None], position: Int64 | None, at: Int64) -> Rows:
        """Return what one part of the reply says."""
        plan = part.plan
        if isinstance(plan, RowDecoder):
            rows = plan.decode(values, position, at)
            if plan.names == part.views:
                return rows
            status = dict(zip(part.views, rows.status.values(), strict=True))
            return Rows(status, partial(_given, rows.columns, part.renamed))
        events, _ = codec.unpack(plan.view, values, plan.layout)
        row_key = np.arange(len(values)) if position is None else position
        found = window_columns(plan, events, row_key, at, cutoff=self._cutoff)
        return Rows({part.views[0]: found.status}, partial(_given, lambda: {**found.columns}, part.renamed))


def _given(columns: Callable[[], Columns], renamed: Mapping[str, str]) -> Columns:
    """Return the columns by the names that the reader gives them."""
    made = columns()
    return {renamed[name]: column for name, column in made.items()} if renamed else made


def _parts(service: FeatureService, keys: Sequence[tuple[str, ...]], cutoff: bool) -> list[_Part]:
    """Return one part per window view, and one for all row views of an entity that are joined by the same columns."""
    parts = []
    rows: dict[tuple[Entity, tuple[str, ...]], list[View | AliasedView]] = {}
    for view in service.views:
        if isinstance(view.stored, RowView):
            rows.setdefault((view.stored.entity, view.keys), []).append(view)
            continue
        plan, prefix = plan_of(view.stored), codec.prefix(view.stored)
        parts.append(
            _Part(key=keys.index(view.keys), prefix=prefix, plan=plan, views=(view.name,), renamed=_renamed([view]))
        )
    for (entity, columns), views in rows.items():
        decoder = RowDecoder(entity, [view.stored for view in views if isinstance(view.stored, RowView)], cutoff=cutoff)
        names = tuple(view.name for view in views)
        parts.append(
            _Part(
                key=keys.index(columns), prefix=row_prefix(entity), plan=decoder, views=names, renamed=_renamed(views)
            )
        )
    return parts


def _renamed(views: Sequence[View | AliasedView]) -> dict[str, str]:
    """Return feature → the name that its reader gives it; nothing where all have their own."""
    names = {name: given for view in views for name, given in zip(view.stored.features, view.features, strict=True)}
    return {} if all(name == given for name, given in names.items()) else names


def _bulk(part: bytes) -> bytes:
    """Return an argument in the RESP protocol."""
    return b"$%d\r\n%b\r\n" % (len(part), part)


def _distinct(names: tuple[str, ...], keys: Columns, n: int) -> tuple[Int64 | None, list[bytes]]:
    """Return each row's place among the distinct keys (−1: null; None: every row has its own), and these as bytes."""
    columns = [_column(name, keys, n) for name in names]
    if len(columns) > 1:
        return _distinct_texts(columns)
    column = columns[0]
    wanted = column.tolist()
    if n == 1 and column.dtype.kind == "i":
        return None, [b"%d" % wanted[0]]
    if column.dtype.kind == "i" and len(set(wanted)) == n:
        return None, [b"%d" % key for key in wanted]
    seen: dict[object, int] = {}
    position = [-1 if key is None else seen.setdefault(key, len(seen)) for key in wanted]
    return np.array(position, np.int64), [str(key).encode() for key in seen]


def _distinct_texts(columns: Sequence[npt.NDArray[np.generic]]) -> tuple[Int64, list[bytes]]:
    """Do the same for a key of several columns: one with a null part is none."""
    seen: dict[tuple[int | str, ...], int] = {}
    position = [
        -1 if None in parts else seen.setdefault(parts, len(seen))
        for parts in zip(*(column.tolist() for column in columns), strict=True)
    ]
    return np.array(position, np.int64), [key_text(parts).encode() for parts in seen]


def _column(name: str, keys: Columns, n: int) -> npt.NDArray[np.generic]:
    column = keys.get(name)
    if column is None or len(column) != n:
        raise InvalidValue(name, "the batch needs one key per row")
    return column
