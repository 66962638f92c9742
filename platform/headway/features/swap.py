"""Puts values of window views into the store where nobody else changed them meanwhile, and says when they may go.

A value that only grew at its end is sent as that end. Values of busy keys are remembered, so that they need not be read
again before the next write: the swap compares headers, with sequence and checksum, so a memory that is out of date
costs a repetition and nothing else. The server deletes a key once no window can reach its events.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from headway.features.windows.codec import HEADER

_SWAP = """
local lost = {}
for i = 1, #KEYS do
  local key, place = KEYS[i], 4 * i - 3
  local head, tail, ttl = ARGV[place + 1], ARGV[place + 2], ARGV[place + 3]
  if redis.call('GETRANGE', key, 0, 31) ~= ARGV[place] then
    lost[#lost + 1] = i
  elseif tail ~= '' then
    redis.call('SETRANGE', key, 0, head)
    redis.call('APPEND', key, tail)
    if ttl ~= '0' then redis.call('PEXPIRE', key, ttl) end
  elseif ttl ~= '0' then
    redis.call('SET', key, head, 'PX', ttl)
  else
    redis.call('SET', key, head)
  end
end
return lost
"""
_LONG = 4_096
"""Bytes from which on a value is sent as what it grew by; a server may set aside as much again for it to grow."""
_OVERHEAD = 200


class Swap:
    """Compare-and-set of many keys in one round trip."""

    def __init__(self, client: Any, *, remembered: int = 0) -> None:
        """Remember the newest values that were put in, up to so many bytes."""
        self._client = client
        self._script = client.register_script(_SWAP)
        self._limit = remembered
        self._size = 0
        self._values: OrderedDict[bytes, bytes] = OrderedDict()

    def stored(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return what is stored under names, or was when it was put in from here."""
        found: list[bytes | None] = [self._values.get(name) for name in names]
        unknown = [i for i, value in enumerate(found) if value is None]
        if unknown:
            values = self._client.mget([names[i] for i in unknown])
            for i, value in zip(unknown, values, strict=True):
                found[i] = value
        return found

    def put(
        self, names: Sequence[bytes], old: Sequence[bytes | None], new: Sequence[bytes], ttls: Sequence[int]
    ) -> list[int]:
        """Replace old values by new ones; return the places where another writer was first.

        Args:
            names: Keys.
            old: What was found there.
            new: What is to be there.
            ttls: Milliseconds after which the server may delete each key; 0: never.
        """
        if not names:
            return []
        arguments: list[bytes | int] = []
        for before, after, ttl in zip(old, new, ttls, strict=True):
            arguments += [b"" if before is None else before[: HEADER.size], *_parts(before, after), ttl]
        try:
            lost = [int(place) - 1 for place in self._script(keys=names, args=arguments)]
        except BaseException:
            self._forget(names)
            raise
        self._forget([names[i] for i in lost])
        self._remember(names, new, frozenset(lost))
        return lost

    def _remember(self, names: Sequence[bytes], values: Sequence[bytes], but: frozenset[int]) -> None:
        if not self._limit:
            return
        for i, (name, value) in enumerate(zip(names, values, strict=True)):
            if i not in but:
                self._forget([name])
                self._values[name] = value
                self._size += len(value) + _OVERHEAD
        while self._size > self._limit:
            _, value = self._values.popitem(last=False)
            self._size -= len(value) + _OVERHEAD

    def _forget(self, names: Sequence[bytes]) -> None:
        for name in names:
            value = self._values.pop(name, None)
            if value is not None:
                self._size -= len(value) + _OVERHEAD


def _parts(before: bytes | None, after: bytes) -> tuple[bytes, bytes]:
    """Return what goes to the value's beginning and what to its end, empty where all of it is written."""
    if (
        before is not None
        and _LONG <= len(before) < len(after)
        and after.startswith(before[HEADER.size :], HEADER.size)
    ):
        return after[: HEADER.size], after[len(before) :]
    return after, b""
