"""Writes events to the online store: merged per key, pruned, capped, and swapped in by compare-and-set.

A write reads the keys it touches, merges in memory and replaces each value only if nobody else did meanwhile, so that
two writers never lose an event and late or repeated ones change nothing they should not. Rows of row views go through
`rows.store`. `PackedRedisOnlineStore`, the same idea as a plug-in of Feast, is found here too, without importing Feast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import redis

from headway.core.clock import Clock, SystemClock
from headway.core.errors import Conflict, InvalidValue
from headway.core.types import Int64
from headway.features.arrow import conform, events_of, locate, needed
from headway.features.definitions import RowView, View, WindowView
from headway.features.link import away
from headway.features.online_keys import materialized_key, version_keys, watermark_key, watermark_pattern
from headway.features.rows.store import RowStore
from headway.features.status import KEPT, SLACK
from headway.features.swap import Swap
from headway.features.windows import codec
from headway.features.windows.events import Events
from headway.features.windows.merging import Merged, merge
from headway.features.windows.scan import NEVER
from headway.features.write_report import WriteReport

_RAISE = """
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) > current then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""
_ATTEMPTS = 20
_CHUNK = 512
_TIMEOUT_S = 10.0
ALL = -2
"""In place of a bucket: all of them, and those that have no file yet."""


LakeRows = Callable[[WindowView, npt.NDArray[np.generic]], pa.Table]
"""View, keys → all rows of the view's source that these keys have, as the lake knows them now."""


class OnlineStore:
    """Packed events per (window view, key) and packed rows per (entity, key) on a Redis-protocol server."""

    def __init__(
        self, url: str, *, clock: Clock | None = None, history: LakeRows | None = None, remembered: int = 0
    ) -> None:
        """Connect on first use.

        Args:
            url: Of the server.
            clock: Says when keys were written.
            history: Asked for keys whose late events only the lake can place.
            remembered: Bytes of values that are kept here, so that a busy key need not be read before it is written.
        """
        self._clock = clock or SystemClock()
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=False
        )
        self._swap = Swap(self._client, remembered=remembered)
        self._raise = self._client.register_script(_RAISE)
        self._rows = RowStore(self._client, self._clock)
        self._history = history

    def write(self, view: View, events: pa.Table) -> WriteReport:
        """Merge rows of the view's source into the store; Unavailable if the server is away.

        Raises InvalidValue, naming the key, where a view with `Overflow.REJECT` would exceed `max_events`, and Conflict
        where others keep changing the same keys; earlier chunks are written then, and repeating the write is harmless.
        """
        if isinstance(view, RowView):
            try:
                return self._rows.write(view, events)
            except redis.RedisError as error:
                raise away(error) from error
        new = events_of(view, conform(view.source, events, needed(view)))
        report = WriteReport(keys=len(new.keys), events=len(new))
        try:
            for begin in range(0, len(new.keys), _CHUNK):
                self._write_keys(view, _pick(new, np.arange(begin, min(begin + _CHUNK, len(new.keys)))), report)
        except redis.RedisError as error:
            raise away(error) from error
        return report

    def set_watermark(self, view: View, known_time: int) -> None:
        """Say that the view is complete up to `known_time`; it never goes back."""
        try:
            self._raise(keys=[watermark_key(view)], args=[known_time])
        except redis.RedisError as error:
            raise away(error) from error

    def ping(self) -> None:
        """Raise Unavailable if the server is away."""
        try:
            self._client.ping()
        except redis.RedisError as error:
            raise away(error) from error

    def watermarks(self, versions: Sequence[str]) -> dict[str, int]:
        """Return version of a view (`<name>@<hash>`, as its watermark is named) → watermark, 0 where none was set."""
        if not versions:
            return {}
        try:
            marks = self._client.mget([f"headway:w:{version}" for version in versions])
        except redis.RedisError as error:
            raise away(error) from error
        return {version: int(mark or 0) for version, mark in zip(versions, marks, strict=True)}

    def watermark(self, view: View) -> int:
        """Return the view's watermark, 0 where none was set."""
        try:
            return int(self._client.get(watermark_key(view)) or 0)
        except redis.RedisError as error:
            raise away(error) from error

    def materialized(self, view: View) -> dict[int, tuple[int, int]]:
        """Return, by bucket of the view's source or `ALL`, the snapshot that is here, and its largest known_time."""
        try:
            stored = self._client.hgetall(materialized_key(view))
        except redis.RedisError as error:
            raise away(error) from error
        parts = {int(bucket): value.split(b":") for bucket, value in stored.items()}
        return {bucket: (int(snapshot), int(newest)) for bucket, (snapshot, newest) in parts.items()}

    def set_materialized(self, view: View, bucket: int, snapshot_id: int, newest: int) -> None:
        """Remember that a bucket's rows up to a snapshot are here, and their largest known_time."""
        try:
            self._client.hset(materialized_key(view), str(bucket), f"{snapshot_id}:{newest}")
        except redis.RedisError as error:
            raise away(error) from error

    def clear(self, view: View) -> int:
        """Forget every key of the view and how far it was, before it is materialised anew; return the keys."""
        try:
            removed = self._rows.clear(view) if isinstance(view, RowView) else self._unlink(codec.prefix(view) + b"*")
            self._client.unlink(watermark_key(view), materialized_key(view))
            return removed
        except redis.RedisError as error:
            raise away(error) from error

    def retire(self, names: Collection[str], keep: Collection[View]) -> int:
        """Forget versions of the named window views other than those to keep; return how many keys that were."""
        kept = {watermark_key(view) for view in keep}
        removed = 0
        try:
            for name in sorted(names):
                for mark in list(self._client.scan_iter(match=watermark_pattern(name), count=_CHUNK)):
                    if mark in kept:
                        continue
                    values, filled = version_keys(mark)
                    removed += self._unlink(values)
                    self._client.unlink(mark, filled)
        except redis.RedisError as error:
            raise away(error) from error
        return removed

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _unlink(self, pattern: bytes) -> int:
        removed = 0
        batch: list[bytes] = []
        for key in self._client.scan_iter(match=pattern, count=_CHUNK):
            batch.append(key)
            if len(batch) == _CHUNK:
                removed += int(self._client.unlink(*batch))
                batch.clear()
        return removed + (int(self._client.unlink(*batch)) if batch else 0)

    def _write_keys(self, view: WindowView, new: Events, report: WriteReport) -> None:
        """Merge and swap in until nobody was faster; keys that need their whole history are made anew."""
        todo, late = np.arange(len(new.keys)), []
        for _ in range(_ATTEMPTS):
            part = new if len(todo) == len(new.keys) else _pick(new, todo)
            names = _names(view, part.keys)
            stored = self._swap.stored(names)
            merged = merge(view, part, stored)
            late += todo[merged.late].tolist()
            fine = np.flatnonzero(~merged.late)
            lost = fine[self._swapped(view, names, stored, merged, fine)]
            report.pruned += merged.pruned
            report.overflowed += merged.overflowed
            report.retries += len(lost)
            todo = todo[lost]
            if not len(todo):
                break
        else:
            raise _contested(view, len(todo))
        if late:
            self._make_anew(view, new.keys[np.array(late)], report)

    def _make_anew(self, view: WindowView, keys: npt.NDArray[np.generic], report: WriteReport) -> None:
        """Replace the values of keys by what the lake has of them."""
        if self._history is None:
            raise InvalidValue(
                ", ".join(view.entity.keys),
                f"{keys[0]} has events from before its tiles of {view.name} were closed, and the store knows no lake",
                hint="headway features materialize",
            )
        for _ in range(_ATTEMPTS):
            names = _names(view, keys)
            stored = self._client.mget(names)  # before the lake is read: what is written after that is not lost
            whole = events_of(view, conform(view.source, self._history(view, keys), needed(view)))
            found = _pick(whole, locate(whole.keys, keys))
            merged = merge(view, found, stored, anew=True)
            lost = self._swapped(view, names, stored, merged, np.arange(len(keys)))
            report.rebuilt += len(keys) - len(lost)
            report.retries += len(lost)
            keys = keys[lost]
            if not len(keys):
                return
        raise _contested(view, len(keys))

    def _swapped(
        self, view: WindowView, names: Sequence[bytes], stored: Sequence[bytes | None], merged: Merged, chosen: Int64
    ) -> Int64:
        """Put in the values of the chosen keys; return the places among them where another writer was first."""
        places = chosen.tolist()
        lost = self._swap.put(
            [names[i] for i in places],
            [stored[i] for i in places],
            [merged.values[i] for i in places],
            self._ttls(view, merged.newest[chosen]),
        )
        return np.array(lost, np.int64)

    def _ttls(self, view: WindowView, newest: Int64) -> list[int]:
        """Return the milliseconds from now on during which a window may reach a key's events, with room to spare."""
        if view.horizon is None:
            return [0] * len(newest)
        ahead = np.maximum(newest - self._clock.now(), 0)
        found: list[int] = (-(-(ahead + view.horizon + SLACK + KEPT) // 1_000)).tolist()
        return found


def _pick(events: Events, positions: Int64) -> Events:
    """Return the events of some keys."""
    counts = np.diff(events.offsets)[positions]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = np.repeat(events.offsets[:-1][positions] - offsets[:-1], counts) + np.arange(int(offsets[-1]))
    return Events(
        keys=events.keys[positions],
        offsets=offsets,
        records=events.records[rows],
        truncated_before=np.full(len(positions), NEVER, np.int64),
    )


def _names(view: WindowView, keys: npt.NDArray[np.generic]) -> list[bytes]:
    prefix = codec.prefix(view)
    return [prefix + str(key).encode() for key in keys.tolist()]


def _contested(view: WindowView, keys: int) -> Conflict:
    return Conflict(f"{keys} keys of {view.name} keep changing", hint="look who else is writing: headway status")


def __getattr__(name: str) -> Any:
    """Return the plug-in and its configuration, which Feast looks for beside each other."""
    if name in ("PackedRedisOnlineStore", "PackedRedisOnlineStoreConfig"):
        from headway.features.feast import online as plugin

        return getattr(plugin, name)
    raise AttributeError(name)
