"""How far all partitions of a topic are: a view is complete up to the least of them."""

from __future__ import annotations

from typing import Any

import redis

from headway.core.errors import Unavailable
from headway.features.streams.port import Topic

_ADVANCE = """
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if known < tonumber(ARGV[4]) then return '-1' end
if tonumber(ARGV[2]) > known then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
if redis.call('HLEN', KEYS[1]) < tonumber(ARGV[3]) then return '0' end
local least = nil
for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
  if least == nil or tonumber(value) < tonumber(least) then least = value end
end
return least
"""
_TIMEOUT_S = 10.0
LOST = -1
"""In place of a watermark: the store has an older state than the checkpoint."""


class PartitionWatermarks:
    """Watermarks by partition, beside the views that they bound; each only grows, so a late writer does no harm."""

    def __init__(self, url: str) -> None:
        """Connect on first use."""
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=False
        )
        self._advance = self._client.register_script(_ADVANCE)

    def advance(self, topic: Topic, partition: int, watermark: int, *, floor: int = 0) -> int:
        """Raise a partition's watermark and return the topic's: the least, 0 until every partition has one.

        `LOST`, and nothing is raised, where the store remembers less than `floor`: it lost what it had.
        """
        key = f"headway:p:{topic.name}@{topic.identity}"
        try:
            return int(self._advance(keys=[key], args=[partition, watermark, topic.partitions, floor]))
        except redis.RedisError as error:
            raise Unavailable(
                f"the online store cannot be reached: {error}", retry_after_s=1.0, hint="headway status"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
