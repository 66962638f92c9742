"""Reads a service's features for a request batch: one round trip for all keys of all views, then the kernel.

The read plan is compiled once per service; distinct keys are fetched once, however many rows share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.core.types import Columns, Int64
from headway.features import codec
from headway.features.definitions import Entity, FeatureService, RowView, WindowView
from headway.features.link import RedisLink
from headway.features.row_batch import RowDecoder
from headway.features.row_codec import row_prefix
from headway.features.windows import ViewPlan, plan_of, window_columns


class OnlineRows(msgspec.Struct, frozen=True, kw_only=True):
    """View features of n rows, before transformations."""

    columns: Columns
    """Feature name → one value per row. Of window views float32[n]; of row views the declared type, int64 and bool with
    missing values as float64, strings as object with None."""
    status: dict[str, npt.NDArray[np.uint8]]
    """View name → `Status` per row. The store keeps a row view's newest row only: where that is newer than t (or known
    later, with the cutoff on), the row as of t cannot be told and the status is TRUNCATED."""
    watermark: dict[str, int]
    """View name → largest known_time up to which it is complete; 0 where none was set."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one key of an entity is fetched for."""

    entity: int
    """Position among the service's entities."""
    prefix: bytes
    plan: ViewPlan | RowDecoder
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
        self._entities = service.entities
        self._parts = _parts(service, cutoff)
        self._views = [view.name for view in service.views]
        self._marks: tuple[list[bytes | None], dict[str, int]] = ([], {})
        self._watermarks = b"".join(_bulk(codec.watermark_key(view)) for view in service.views)

    async def read(self, keys: Columns, at: Int64) -> OnlineRows:
        """Return the features of n rows as of their decision times.

        Args:
            keys: Entity key column → n keys: int64, or object for strings and nulls.
            at: int64[n], UTC microseconds.

        Raises InvalidValue for a missing key column, Unavailable when the store is away or late, CorruptState for a
        value that is not the platform's.
        """
        found = [_distinct(entity, keys, len(at)) for entity in self._entities]
        views = len(self._views)
        arguments = [self._watermarks]
        for part in self._parts:
            arguments += part.bulks(found[part.entity][1])
        head = b"*%d\r\n$4\r\nMGET\r\n" % (views + len(arguments))  # the watermarks are one of the arguments
        reply: list[bytes | None] = await self._link.call(head + b"".join(arguments))
        columns: Columns = {}
        status: dict[str, npt.NDArray[np.uint8]] = {}
        begin = views
        for part in self._parts:
            position, names = found[part.entity]
            end = begin + len(names)
            self._decode(part.plan, reply[begin:end], position, at, columns, status)
            begin = end
        status = {name: status[name] for name in self._views}
        return OnlineRows(columns=columns, status=status, watermark=self._watermark(reply[:views]))

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    def _watermark(self, marks: list[bytes | None]) -> dict[str, int]:
        """Return the views' watermarks; most reads find those of the read before."""
        if marks != self._marks[0]:
            found = {name: int(mark or 0) for name, mark in zip(self._views, marks, strict=True)}
            self._marks = (marks, found)
        return self._marks[1].copy()

    def _decode(
        self,
        plan: ViewPlan | RowDecoder,
        values: Sequence[bytes | None],
        position: Int64 | None,
        at: Int64,
        columns: Columns,
        status: dict[str, npt.NDArray[np.uint8]],
    ) -> None:
        """Add what one part of the reply says."""
        if isinstance(plan, RowDecoder):
            rows, states = plan.decode(values, position, at)
            columns.update(rows)
            status.update(zip(plan.names, states, strict=True))
            return
        events, _ = codec.unpack(plan.view, values, plan.layout)
        row_key = np.arange(len(values)) if position is None else position
        found = window_columns(plan, events, row_key, at, cutoff=self._cutoff)
        columns.update(found.columns)
        status[plan.view.name] = found.status


def _parts(service: FeatureService, cutoff: bool) -> list[_Part]:
    """Return one part per window view, and one per entity for all of its row views."""
    parts = []
    for number, entity in enumerate(service.entities):
        own = [view for view in service.views if view.entity == entity]
        rows = [view for view in own if isinstance(view, RowView)]
        parts += [
            _Part(entity=number, prefix=codec.prefix(view), plan=plan_of(view))
            for view in own
            if isinstance(view, WindowView)
        ]
        if rows:
            decoder = RowDecoder(entity, rows, cutoff=cutoff)
            parts.append(_Part(entity=number, prefix=row_prefix(entity), plan=decoder))
    return parts


def _bulk(part: bytes) -> bytes:
    """Return an argument in the RESP protocol."""
    return b"$%d\r\n%b\r\n" % (len(part), part)


def _distinct(entity: Entity, keys: Columns, n: int) -> tuple[Int64 | None, list[bytes]]:
    """Return each row's place among the distinct keys (−1: null; None: every row has its own), and these as bytes."""
    column = keys.get(entity.key)
    if column is None or len(column) != n:
        raise InvalidValue(entity.key, "the batch needs one key per row")
    wanted = column.tolist()
    if column.dtype.kind == "i" and len(set(wanted)) == n:
        return None, [b"%d" % key for key in wanted]
    seen: dict[object, int] = {}
    position = [-1 if key is None else seen.setdefault(key, len(seen)) for key in wanted]
    return np.array(position, np.int64), [str(key).encode() for key in seen]
