"""Writes rows to the online store: the newest of each key, put beside the rows of the key's other views.

A write reads the values it touches, replaces the view's row where its own is newer by (event_time, known_time, id), and
swaps the whole in only if nobody else changed it meanwhile: an older row never replaces a newer one, in any order and
by any number of writers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.clock import Clock
from headway.core.errors import Conflict
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.arrow import conform, keys, needed, owned, times
from headway.features.definitions import RowView
from headway.features.rows.codec import Row, encode, row_layout, row_prefix
from headway.features.rows.value import replace
from headway.features.status import SLACK
from headway.features.windows.events import event_ids
from headway.features.write_report import WriteReport

_SWAP = """
local lost = {}
for i = 1, #KEYS do
  local old, new, at = redis.call('GET', KEYS[i]) or '', ARGV[3 * i - 1], tonumber(ARGV[3 * i])
  if old ~= ARGV[3 * i - 2] then
    lost[#lost + 1] = i
  elseif new == '' then
    redis.call('DEL', KEYS[i])
  else
    if at > 0 and old ~= '' then
      local current = redis.call('PEXPIRETIME', KEYS[i])
      at = current < 0 and 0 or math.max(at, current)
    end
    if at == 0 then
      redis.call('SET', KEYS[i], new)
    else
      redis.call('SET', KEYS[i], new, 'PXAT', string.format('%.0f', math.abs(at)))
    end
  end
end
return lost
"""
_ATTEMPTS = 40
_CHUNK = 512


class RowStore:
    """Packed rows per (entity, key) on a Redis-protocol server."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._swap = client.register_script(_SWAP)

    def write(self, view: RowView, table: pa.Table) -> WriteReport:
        """Put rows of the view's source into the store where they are the newest."""
        names, rows, given = newest(view, table)
        report = WriteReport(keys=len(names), events=given, pruned=given - len(rows))
        for begin in range(0, len(names), _CHUNK):
            self._put(view, names[begin : begin + _CHUNK], rows[begin : begin + _CHUNK], report)
        return report

    def clear(self, view: RowView) -> int:
        """Take the view's row out of every key, and return how many keys had one."""
        removed = 0
        for names in self._scan(row_prefix(view.entity)):
            report = WriteReport()
            self._put(view, names, [None] * len(names), report)
            removed += len(names) - report.pruned
        return removed

    def _put(self, view: RowView, names: Sequence[bytes], rows: Sequence[Row | None], report: WriteReport) -> None:
        tag = row_layout(view).tag
        todo = list(range(len(names)))
        for _ in range(_ATTEMPTS):
            stored: list[bytes | None] = self._client.mget([names[i] for i in todo])
            changed: list[int] = []
            arguments: list[bytes | int] = []
            for i, old in zip(todo, stored, strict=True):
                row = rows[i]
                new, alone = replace(old, view.entity, tag, row)
                if new is None:
                    report.pruned += 1
                    continue
                changed.append(i)
                arguments += [old or b"", new, 0 if row is None else self._expiry(view, row, alone=alone)]
            if not changed:
                return
            lost = self._swap(keys=[names[i] for i in changed], args=arguments)
            if not lost:
                return
            report.retries += len(lost)
            todo = [changed[i - 1] for i in lost]
        raise Conflict(
            f"{len(todo)} keys of {view.name} keep changing", hint="look who else is writing: headway status"
        )

    def _expiry(self, view: RowView, row: Row, *, alone: bool) -> int:
        """Return when the key may go, in ms since 1970; 0: never; negative: then, whatever was agreed before.

        Other views' rows may need the key for longer, so its expiry only ever moves back, unless the row is its only
        one. A row past its ttl already is an old history being replayed, whose decisions lie in the past as well: it
        stays. The check at read tells expired rows, not this.
        """
        if view.ttl is None or row.rank[0] + view.ttl < self._clock.now():
            return 0
        at = (row.rank[0] + view.ttl + SLACK) // 1_000
        return -at if alone else at

    def _scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        batch: list[bytes] = []
        for key in self._client.scan_iter(match=prefix + b"*", count=_CHUNK):
            batch.append(key)
            if len(batch) == _CHUNK:
                yield batch
                batch = []
        if batch:
            yield batch


def newest(view: RowView, table: pa.Table) -> tuple[list[bytes], list[Row], int]:
    """Return the store's key and the newest row of each key, and how many rows have a key at all."""
    layout = row_layout(view)
    source = view.source
    table = owned(conform(source, table, needed(view)), view.entity)
    given = table.num_rows
    if given == 0:
        return [], [], 0
    owner = keys(table, view.entity)
    distinct, code = np.unique(owner, return_inverse=True)
    ids = event_ids(np.asarray(table[source.id].to_numpy()))
    event_time, known_time = times(table, EVENT_TIME), times(table, KNOWN_TIME)
    order = np.lexsort([ids, known_time, event_time, code])
    last = order[np.flatnonzero(np.diff(code[order], append=len(distinct)))]
    kept = table.take(pa.array(last))
    values, nulls = _values(view, kept)
    rows = encode(layout, event_time[last], known_time[last], ids[last], values, nulls)
    prefix = row_prefix(view.entity)
    return [prefix + str(key).encode() for key in distinct.tolist()], rows, given


def _values(view: RowView, table: pa.Table) -> tuple[list[npt.NDArray[Any]], dict[int, npt.NDArray[np.bool_]]]:
    """Return the view's columns as arrays, and the null rows of those that have no null of their own."""
    values: list[npt.NDArray[Any]] = []
    nulls: dict[int, npt.NDArray[np.bool_]] = {}
    for place, (name, dtype) in enumerate(zip(view.columns, view.dtypes, strict=True)):
        column = table[name].combine_chunks()
        if dtype == "string":
            values.append(np.array(column.to_pylist(), object))
        elif pa.types.is_floating(column.type):
            values.append(np.asarray(column.to_numpy(zero_copy_only=False)))
        else:
            if column.null_count:
                nulls[place] = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
                column = column.fill_null(False if dtype == "bool" else 0)
            values.append(np.asarray(column.to_numpy(zero_copy_only=False)))
    return values, nulls
