"""The control store on a Redis-protocol server with append-only fsync; compare-and-set runs as one script."""

from __future__ import annotations

from typing import Any

import redis

from headway.core.control.port import Record
from headway.core.errors import Conflict, Unavailable

_PUT = """
local current = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if current ~= tonumber(ARGV[1]) then return -current - 1 end
redis.call('HSET', KEYS[1], 'version', current + 1, 'value', ARGV[2])
return current + 1
"""
_TIMEOUT_S = 5.0


class RedisControlStore:
    """Records as hashes {version, value} under `headway:`; every call is bounded in time, or raises Unavailable."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=False
        )
        """Its connections, for what the port of records has no call for."""
        self._put = self.client.register_script(_PUT)

    def get(self, key: str) -> Record | None:
        """Return the record, or None."""
        try:
            version, value = self.client.hmget(f"headway:{key}", "version", "value")
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return None if version is None else Record(value=value, version=int(version))

    def put(self, key: str, value: bytes, *, expected: int) -> int:
        """Write if the version is `expected`; Conflict otherwise."""
        try:
            outcome = int(self._put(keys=[f"headway:{key}"], args=[expected, value]))
        except redis.RedisError as error:
            raise _unavailable(error) from error
        if outcome < 0:
            raise Conflict(f"{key} is at version {-outcome - 1}, not {expected}", hint="read it again and repeat")
        return outcome

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def _unavailable(error: redis.RedisError) -> Unavailable:
    """Return the error of the house: callers branch on it, and answer or wait as for any dependency that is down."""
    if isinstance(error, redis.OutOfMemoryError):
        what, hint = "is full and refuses writes", "raise maxmemory of redis-control, or delete what nobody reads"
    elif isinstance(error, redis.ConnectionError | redis.TimeoutError):
        what, hint = "cannot be reached", "headway status"
    else:
        what, hint = "refuses", "see the log of redis-control: headway status"
    return Unavailable(f"the control store {what}: {error}", retry_after_s=1.0, hint=hint)
