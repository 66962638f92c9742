"""Reads a service's features for a request batch: one round trip for all keys of all views, then the kernel.

The read plan is compiled once per service; distinct keys are fetched once, however many rows share them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.core.types import Columns, Int64
from headway.features import codec
from headway.features.definitions import Entity, FeatureService
from headway.features.link import RedisLink
from headway.features.windows import plan_of, window_columns


@dataclass(frozen=True, kw_only=True)
class OnlineRows:
    """View features of n rows, before transformations."""

    columns: dict[str, npt.NDArray[np.float32]]
    """Feature name → float32[n]."""
    status: dict[str, npt.NDArray[np.uint8]]
    """View name → `Status` per row."""
    watermark: dict[str, int]
    """View name → largest known_time up to which it is complete; 0 where none was set."""


class OnlineReader:
    """The compiled read plan of one feature service; use it from one event loop."""

    def __init__(self, service: FeatureService, url: str, *, timeout_s: float = 0.5, cutoff: bool = True) -> None:
        self._link = RedisLink(url, timeout_s=timeout_s)
        self._cutoff = cutoff
        self._entities = service.entities
        self._plans = [plan_of(view) for view in service.views]
        self._prefixes = [codec.prefix(view) for view in service.views]
        self._watermarks = [codec.watermark_key(view) for view in service.views]

    async def read(self, keys: Columns, at: Int64) -> OnlineRows:
        """Return the features of n rows as of their decision times.

        Args:
            keys: Entity key column → n keys: int64, or object for strings and nulls.
            at: int64[n], UTC microseconds.

        Raises InvalidValue for a missing key column, Unavailable when the store is away or late.
        """
        positions: dict[str, Int64] = {}
        names: dict[str, list[bytes]] = {}
        for entity in self._entities:
            positions[entity.name], names[entity.name] = _distinct(entity, keys, len(at))
        wanted = [b"MGET", *self._watermarks]
        for plan, prefix in zip(self._plans, self._prefixes, strict=True):
            wanted += [prefix + name for name in names[plan.view.entity.name]]
        parts = [b"*%d\r\n" % len(wanted)]
        parts += [b"$%d\r\n%b\r\n" % (len(part), part) for part in wanted]
        reply: list[bytes | None] = await self._link.call(b"".join(parts))
        columns: dict[str, npt.NDArray[np.float32]] = {}
        status: dict[str, npt.NDArray[np.uint8]] = {}
        watermark: dict[str, int] = {}
        begin = len(self._plans)
        for number, plan in enumerate(self._plans):
            view = plan.view
            end = begin + len(names[view.entity.name])
            events, _ = codec.unpack(view, reply[begin:end])
            begin = end
            found = window_columns(plan, events, positions[view.entity.name], at, cutoff=self._cutoff)
            columns.update(found.columns)
            status[view.name] = found.status
            watermark[view.name] = int(reply[number] or 0)
        return OnlineRows(columns=columns, status=status, watermark=watermark)

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()


def _distinct(entity: Entity, keys: Columns, n: int) -> tuple[Int64, list[bytes]]:
    """Return each row's position among the distinct keys (−1: null), and these as bytes."""
    column = keys.get(entity.key)
    if column is None or len(column) != n:
        raise InvalidValue(entity.key, "the batch needs one key per row")
    seen: dict[object, int] = {}
    position = [-1 if key is None else seen.setdefault(key, len(seen)) for key in column.tolist()]
    return np.array(position, np.int64), [str(key).encode() for key in seen]
