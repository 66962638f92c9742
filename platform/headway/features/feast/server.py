"""The server of Feast's online rows: one Redis-protocol server or the nodes of a cluster, asked once per call and node.

On a cluster, keys are grouped by slot and the groups sent to their nodes in one pipeline each. Rows are written by a
script that compares the stored times inside the server, so that no writer replaces a newer row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import redis
import redis.asyncio
from redis.crc import key_slot

from headway.core.errors import CorruptState, InvalidValue, Unavailable

SCRIPT = """
local function newer(new, old)
  if not old then return true end
  if #old < 29 or old:byte(1) ~= new:byte(1) then return nil end
  for i = 10, 25 do
    local a, b = new:byte(i), old:byte(i)
    if a ~= b then return a > b end
  end
  return true
end
local ways = tonumber(ARGV[1])
local n = #KEYS / ways
local width = (#ARGV - 1) / n
local foreign = {}
for i = 1, n do
  local key, base = KEYS[(i - 1) * ways + 1], (i - 1) * width + 1
  local new, at = ARGV[base + 1], ARGV[base + 2]
  local older = redis.call('GETRANGE', key, 0, 28)
  local better = newer(new, older ~= '' and older)
  if better == nil then
    foreign[#foreign + 1] = i
  elseif better then
    if at == '0' then redis.call('SET', key, new) else redis.call('SET', key, new, 'PXAT', at) end
    if ways == 2 then
      local hash, ends = KEYS[i * 2], ARGV[base + 3]
      redis.call('HSET', hash, unpack(ARGV, base + 4, base + width))
      if ends ~= '0' then
        local fields = {}
        for f = base + 4, base + width, 2 do fields[#fields + 1] = ARGV[f] end
        redis.pcall('HPEXPIREAT', hash, ends, 'FIELDS', #fields, unpack(fields))
      end
    end
  end
end
return foreign
"""
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_CHUNK = 512
_ROUND = 8 * _CHUNK
Write = tuple[tuple[bytes, ...], list[bytes]]
"""The keys of a row and the script's arguments for it, as many for every row of a call."""


class Server:
    """Synchronous calls."""

    def __init__(self, config: Any) -> None:
        self._cluster = config.redis_type == "redis_cluster"
        self.client: Any = connect(config)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of keys, None where there is none."""
        if not keys:
            return []
        with _errors():
            return list((self.client.mget_nonatomic if self._cluster else self.client.mget)(*keys))

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        with _errors():
            self.client.set(key, value)

    def write(self, rows: Sequence[Write]) -> None:
        """Write rows that are not older than the stored ones; CorruptState where a key holds something else."""
        with _errors():
            for parts in _rounds(rows, self._cluster):
                try:
                    found = _pipeline(self.client, parts).execute()
                except redis.exceptions.NoScriptError:
                    self.client.script_load(SCRIPT)
                    found = _pipeline(self.client, parts).execute()
                _check(parts, found)

    def unlink(self, pattern: bytes) -> None:
        """Delete the keys that match a pattern."""
        with _errors():
            batch: list[bytes] = []
            for key in self.client.scan_iter(match=pattern, count=_CHUNK):
                batch.append(key)
                if len(batch) == _CHUNK:
                    self.client.unlink(*batch)
                    batch.clear()
            if batch:
                self.client.unlink(*batch)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class AsyncServer:
    """The calls of `Server` in an event loop."""

    def __init__(self, config: Any) -> None:
        self._cluster = config.redis_type == "redis_cluster"
        self.client: Any = connect(config, asynchronous=True)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Do what `Server.get` does."""
        if not keys:
            return []
        with _errors():
            return list(await (self.client.mget_nonatomic if self._cluster else self.client.mget)(*keys))

    async def put(self, key: bytes, value: bytes) -> None:
        """Do what `Server.put` does."""
        with _errors():
            await self.client.set(key, value)

    async def write(self, rows: Sequence[Write]) -> None:
        """Do what `Server.write` does."""
        with _errors():
            if self._cluster:
                await self.client.initialize()
            for parts in _rounds(rows, self._cluster):
                try:
                    found = await _pipeline(self.client, parts).execute()
                except redis.exceptions.NoScriptError:
                    await self.client.script_load(SCRIPT)
                    found = await _pipeline(self.client, parts).execute()
                _check(parts, found)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


def connect(config: Any, *, asynchronous: bool = False) -> Any:
    """Return a client; InvalidValue names the setting that does not fit."""
    cluster = config.redis_type == "redis_cluster"
    if cluster and config.dual_write:
        raise InvalidValue("dual_write", "a row and its copy must be on one node", hint="redis_type: redis")
    module: Any = redis.asyncio if asynchronous else redis
    timeouts = {"socket_timeout": config.timeout_s, "socket_connect_timeout": config.timeout_s}
    kind = module.RedisCluster if cluster else module.Redis
    text = config.connection_string
    if "://" in text:
        return kind.from_url(text, **timeouts)
    nodes, options = _parsed(text)
    if not cluster:
        if len(nodes) != 1:
            hint = "one host:port, or redis_type: redis_cluster"
            raise InvalidValue("connection_string", f"{len(nodes)} servers", hint=hint)
        return kind(**{"host": nodes[0][0], "port": nodes[0][1], **timeouts, **options})
    if options.pop("db", 0):
        raise InvalidValue("connection_string", "a cluster has no database but 0", hint="leave out db")
    node = module.cluster.ClusterNode
    return kind(startup_nodes=[node(host, port) for host, port in nodes], **{**timeouts, **options})


def _parsed(text: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Return servers and options of a connection string."""
    nodes: list[tuple[str, int]] = []
    options: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            host, _, port = part.rpartition(":") if ":" in part else (part, "", "6379")
            if not port.isdecimal():
                raise InvalidValue("connection_string", f"{part!r} has no port number", hint="host:port")
            nodes.append((host, int(port)))
            continue
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    for name in ("username", "password"):
        if name in options:
            options[name] = str(options[name])
    return nodes, options


def _rounds(rows: Sequence[Write], cluster: bool) -> Iterator[list[list[Write]]]:
    """Yield what is sent together, as one call of the script each: some rows, on a cluster the rows of a slot."""
    for begin in range(0, len(rows), _ROUND):
        some = rows[begin : begin + _ROUND]
        if not cluster:
            yield [list(some[i : i + _CHUNK]) for i in range(0, len(some), _CHUNK)]
            continue
        slots: dict[int, list[Write]] = {}
        for row in some:
            slots.setdefault(key_slot(row[0][0]), []).append(row)
        yield list(slots.values())


def _pipeline(client: Any, parts: Sequence[Sequence[Write]]) -> Any:
    """Return a pipeline that calls the script once for each part."""
    pipeline = client.pipeline(transaction=False)
    for part in parts:
        keys = [key for row_keys, _ in part for key in row_keys]
        arguments = [argument for _, row_arguments in part for argument in row_arguments]
        ways = len(part[0][0])
        pipeline.execute_command("EVALSHA", SHA, len(keys), *keys, b"%d" % ways, *arguments)
    return pipeline


def _check(parts: Sequence[Sequence[Write]], found: Sequence[Sequence[int]]) -> None:
    for part, foreign in zip(parts, found, strict=True):
        if foreign:
            raise CorruptState(
                f"the key {part[foreign[0] - 1][0][0]!r} holds a value that PackedRedisOnlineStore did not write",
                hint="delete it and materialize the view again",
            )


class _errors:
    """Turns the client's errors into the platform's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, redis.RedisError):
            raise Unavailable(f"the online store cannot be reached: {error}", retry_after_s=1.0) from error
