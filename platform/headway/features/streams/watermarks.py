"""How far all partitions of a topic are, by version of a view: a view is complete up to the least of them.

By version, because a version that was added later is not as far as the others until it has been filled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis

from headway.core.errors import Unavailable
from headway.features.definitions import View
from headway.features.online_keys import partitions_key
from headway.features.online_store import OnlineStore
from headway.features.streams.port import Topic

_ADVANCE = """
local found = {}
for i, key in ipairs(KEYS) do
  local known = tonumber(redis.call('HGET', key, ARGV[1]) or '0')
  if known < tonumber(ARGV[4]) then
    found[i] = '-1'
  else
    if tonumber(ARGV[2]) > known then redis.call('HSET', key, ARGV[1], ARGV[2]) end
    local least = '0'
    if redis.call('HLEN', key) >= tonumber(ARGV[3]) then
      least = nil
      for _, value in ipairs(redis.call('HVALS', key)) do
        if least == nil or tonumber(value) < tonumber(least) then least = value end
      end
    end
    found[i] = least
  end
end
return found
"""
_TIMEOUT_S = 10.0
LOST = -1
"""In place of a watermark: the store has an older state of the view than the checkpoint, or none."""


class Completeness:
    """Tells views how far one partition brought them; one that the store does not know that far is filled first."""

    def __init__(self, url: str, online: OnlineStore, partition: int) -> None:
        self.mark = 0
        """known_time up to which the partition's events are online."""
        self._told = 0
        """What the store was told last."""
        self._online, self._partition = online, partition
        self._watermarks = PartitionWatermarks(url)

    def resume(self, mark: int) -> None:
        """Go on from a checkpoint."""
        self.mark = self._told = mark

    def advance(self, topic: Topic, views: Sequence[View], mark: int, refill: Callable[[Sequence[View]], None]) -> None:
        """Say that the partition is complete up to a known_time; it never goes back."""
        self.mark = max(self.mark, mark)
        least = self._watermarks.advance(topic, self._partition, views, self.mark, floor=self._told)
        lost = [view for view, known in zip(views, least, strict=True) if known == LOST]
        if lost:
            refill(lost)
            least = self._watermarks.advance(topic, self._partition, views, self.mark)
        self._told = self.mark
        for view, known in zip(views, least, strict=True):
            if known:
                self._online.set_watermark(view, known)

    def close(self) -> None:
        """Close the connections."""
        self._watermarks.close()


class PartitionWatermarks:
    """Watermarks by view and partition, beside the views; each only grows, so a late writer does no harm."""

    def __init__(self, url: str) -> None:
        """Connect on first use."""
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=False
        )
        self._advance = self._client.register_script(_ADVANCE)

    def advance(
        self, topic: Topic, partition: int, views: Sequence[View], watermark: int, *, floor: int = 0
    ) -> list[int]:
        """Raise a partition's watermark and return the topic's per view: the least, 0 until every partition has one.

        `LOST`, and nothing is raised, for a view of which the store remembers less than `floor`.
        """
        keys = [partitions_key(view, f"{topic.name}@{topic.identity}") for view in views]
        if not keys:
            return []
        try:
            found = self._advance(keys=keys, args=[partition, watermark, topic.partitions, floor])
        except redis.RedisError as error:
            raise Unavailable(
                f"the online store cannot be reached: {error}", retry_after_s=1.0, hint="headway status"
            ) from error
        return [int(least) for least in found]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
