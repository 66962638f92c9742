"""Event streams on a Redis-protocol server: one Redis stream per partition, entry ids are the offsets.

Entries get the ids 0-1, 0-2, …: the server counts on even after everything was trimmed, so an offset is never used
twice and a missing one shows. A partition holds at most `capacity` messages that nobody has released; then producers
are refused, and nothing is dropped to make room. How durable a message is depends on the server's append-only file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import redis

from headway.core.errors import Conflict, InvalidValue, TooLarge, Unavailable
from headway.features.streams.port import (
    MAX_MESSAGE,
    Bounds,
    Message,
    OffsetBeyondEnd,
    RetentionGap,
    Topic,
    TopicFull,
    TopicGone,
    partition_of,
)

_ADD = """
if redis.call('HGET', KEYS[2], 'identity') ~= ARGV[1] then return -1 end
local room = tonumber(redis.call('HGET', KEYS[2], 'capacity')) - redis.call('XLEN', KEYS[1])
if room < (#ARGV - 1) / 2 then return -2 end
local time = redis.call('TIME')
local now = time[1] .. string.format('%06d', time[2])
for i = 2, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '0-*', 'k', ARGV[i], 'v', ARGV[i + 1], 't', now)
end
return #ARGV
"""
_DELETE = """
local identity = redis.call('HGET', KEYS[1], 'identity')
redis.call('DEL', KEYS[1])
return identity
"""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TIMEOUT_S = 10.0
_LONGEST_WAIT_S = 5.0
_CHUNK = 500
_CAPACITY = 1_000_000
_RETRY_AFTER_S = 1.0
_GONE, _FULL = -1, -2


class RedisStream:
    """Topics on one server."""

    def __init__(self, url: str) -> None:
        """Connect on first use."""
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=False
        )
        self._client.set_response_callback("XREAD", _as_it_comes)
        self._add = self._client.register_script(_ADD)
        self._delete = self._client.register_script(_DELETE)

    def create(self, name: str, *, partitions: int, capacity: int = _CAPACITY) -> Topic:
        """Make a topic, or return it as it is; Conflict where it has another number of partitions.

        Args:
            name: Of the topic.
            partitions: Into how many keys are spread; it never changes.
            capacity: Messages per partition that may wait to be released.
        """
        if not _NAME.fullmatch(name):
            raise InvalidValue("name", f"{name!r} is no name of a topic", hint="letters, digits, '.', '_' and '-'")
        with _faults(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hsetnx(_meta(name), "identity", uuid4().hex)
            pipeline.hsetnx(_meta(name), "partitions", partitions)
            pipeline.hset(_meta(name), "capacity", capacity)
            pipeline.execute()
        topic = self.topic(name)
        if topic.partitions != partitions:
            raise Conflict(
                f"{name} has {topic.partitions} partitions, not {partitions}", hint="leave the number of partitions out"
            )
        return topic

    def delete(self, name: str) -> None:
        """Delete a topic with its messages."""
        with _faults():
            partitions = int(self._client.hget(_meta(name), "partitions") or 0)
            identity = self._delete(keys=[_meta(name)])
            if identity is not None:
                gone = Topic(name=name, identity=identity.decode(), partitions=partitions)
                self._client.unlink(*(_key(gone, partition) for partition in range(partitions)))

    def topic(self, name: str) -> Topic:
        """Return the topic; TopicGone where there is none."""
        with _faults():
            identity, partitions = self._client.hmget(_meta(name), "identity", "partitions")
        if identity is None:
            raise _gone(name)
        return Topic(name=name, identity=identity.decode(), partitions=int(partitions))

    def publish(self, topic: Topic, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Append pairs; all of one partition in a call of at most 500 are there, or none.

        Of a call that raises TopicFull everything is there but what is of the partitions that it names.
        """
        parts: dict[int, list[bytes]] = {}
        for i, (key, value) in enumerate(messages):
            if len(value) > MAX_MESSAGE:
                raise TooLarge(f"{len(value):,} bytes", field=f"messages[{i}]", hint=f"at most {MAX_MESSAGE:,}")
            parts.setdefault(partition_of(key, topic.partitions), []).extend((key, value))
        full: set[int] = set()
        while parts:
            full |= self._append(topic, {partition: pairs[: 2 * _CHUNK] for partition, pairs in parts.items()})
            parts = {
                partition: rest
                for partition, pairs in parts.items()
                if partition not in full and (rest := pairs[2 * _CHUNK :])
            }
        if full:
            raise TopicFull(topic.name, full)

    def _append(self, topic: Topic, parts: dict[int, list[bytes]]) -> set[int]:
        """Append to several partitions in one round trip, which the server syncs once; return those that are full."""
        with _faults(), self._client.pipeline(transaction=False) as pipeline:
            for partition, pairs in parts.items():
                keys = [_key(topic, partition), _meta(topic.name)]
                self._add(keys=keys, args=[topic.identity, *pairs], client=pipeline)
            outcomes = dict(zip(parts, pipeline.execute(), strict=True))
        if _GONE in outcomes.values():
            raise _gone(topic.name)
        return {partition for partition, outcome in outcomes.items() if outcome == _FULL}

    def read(self, topic: Topic, partition: int, offset: int, *, limit: int, wait_s: float = 0.0) -> list[Message]:
        """Return messages from an offset on."""
        key = _key(topic, partition)
        block = round(min(wait_s, _LONGEST_WAIT_S) * 1_000)
        command: list[Any] = ["XREAD", "COUNT", limit, *(("BLOCK", block) if block else ()), "STREAMS", key]
        with _faults():
            found = self._client.execute_command(*command, f"0-{offset}")
        if not found:
            bounds = self.bounds(topic, partition)
            if offset > bounds.end:
                raise OffsetBeyondEnd(topic.name, partition, offset, bounds.end)
            if offset < bounds.first:
                raise RetentionGap(topic.name, partition, offset, bounds.first)
            return []
        messages = [_message(entry) for entry in found[0][1]]
        if messages[0].offset != offset:
            raise RetentionGap(topic.name, partition, offset, messages[0].offset)
        return messages

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """Return the first offset that is left and the next one; TopicGone where another topic has the name now."""
        if self.topic(topic.name).identity != topic.identity:
            raise _gone(topic.name)
        with _faults():
            try:
                info = self._client.xinfo_stream(_key(topic, partition))
            except redis.ResponseError as error:
                if "no such key" not in str(error):
                    raise
                return Bounds(first=0, end=0)
        end = _offset(info["last-generated-id"]) + 1
        entry = info["first-entry"]
        return Bounds(first=_offset(entry[0]) if entry else end, end=end)

    def release(self, topic: Topic, partition: int, offset: int) -> None:
        """Forget what is before the offset."""
        with _faults():
            self._client.xtrim(_key(topic, partition), minid=f"0-{offset + 1}", approximate=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _as_it_comes(response: Any, **_: Any) -> Any:
    return response


def _message(entry: Any) -> Message:
    _, key, _, value, _, published = entry[1]
    return Message(offset=_offset(entry[0]), key=key, value=value, published=int(published))


def _offset(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[2]) - 1


def _meta(name: str) -> str:
    return f"headway:t:{name}"


def _key(topic: Topic, partition: int) -> str:
    return f"headway:s:{topic.name}@{topic.identity}:{partition}"


def _gone(name: str) -> TopicGone:
    return TopicGone(
        f"there is no topic {name!r}, or another one has its name now",
        retry_after_s=_RETRY_AFTER_S,
        hint="create it; what was read of the old one is safe",
    )


@contextmanager
def _faults() -> Iterator[None]:
    """Raise Unavailable where the server is away or refuses."""
    try:
        yield
    except redis.RedisError as error:
        raise Unavailable(
            f"the stream server does not answer: {error}", retry_after_s=_RETRY_AFTER_S, hint="headway status"
        ) from error
