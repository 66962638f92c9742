"""A Feast online store on Redis: one packed value per (view, entity), written by compare-and-set, its ttl kept at read.

Name it in a repository's `feature_store.yaml` (docs/feast.md says how it differs from Feast's own):
`online_store: {type: headway.features.online_store.PackedRedisOnlineStore, connection_string: "localhost:6379"}`
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain
from typing import Any, Literal

import redis
import redis.asyncio
from feast import utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel

from headway.core.clock import Clock, SystemClock
from headway.core.errors import CorruptState, Unavailable
from headway.core.times import DAY, SECOND
from headway.features import feast_values

_WRITE = """
local function newer(new, old)
  if not old then return true end
  if #old < 29 or old:byte(1) ~= new:byte(1) then return nil end
  for i = 10, 25 do
    local a, b = new:byte(i), old:byte(i)
    if a ~= b then return a > b end
  end
  return true
end
local foreign = {}
for i = 1, #KEYS do
  local new, at = ARGV[2 * i - 1], ARGV[2 * i]
  local older = redis.call('GETRANGE', KEYS[i], 0, 28)
  local better = newer(new, older ~= '' and older)
  if better == nil then
    foreign[#foreign + 1] = i
  elseif better then
    if at == '0' then redis.call('SET', KEYS[i], new) else redis.call('SET', KEYS[i], new, 'PXAT', at) end
  end
end
return foreign
"""
_CHUNK = 512
SLACK = 3 * DAY
"""A row is kept this much longer than its ttl, so that a view's ttl can be raised without losing rows at once."""
Row = tuple[datetime | None, dict[str, Any] | None]
_Read = tuple[Any, list[Any], list[str] | None]
"""View, entity keys, requested features."""


class PackedRedisOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast publishes no types
    """The `online_store` section of feature_store.yaml."""

    type: Literal[
        "headway.features.online_store.PackedRedisOnlineStore", "headway.features.feast_online.PackedRedisOnlineStore"
    ] = "headway.features.online_store.PackedRedisOnlineStore"
    """The class."""
    connection_string: str = "localhost:6379"
    """`host:port,db=0,ssl=true,password=…` as in Feast's Redis store, or a URL: redis://, rediss://, unix://. One
    server or what looks like one; no cluster."""
    timeout_s: float = 10.0
    """Seconds after which a call is given up."""


class PackedRedisOnlineStore(OnlineStore):  # type: ignore[misc]  # Feast publishes no types
    """Feast's online store interface over packed values."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._client: Any = None
        self._async_client: tuple[Any, Any] | None = None
        self._schemas: dict[bytes, tuple[str, ...]] = {}

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Both."""
        return SupportedAsyncMethods(read=True, write=True)

    def online_write_batch(
        self, config: Any, table: Any, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows unless the stored one is newer by (event_ts, created_ts); a missing created_ts is the event_ts."""
        client = self._connect(config)
        write = client.register_script(_WRITE)
        with _errors():
            client.set(*_schema(config, table))
            for keys, arguments in self._writes(config, table, data):
                _check(write(keys=keys, args=arguments), keys)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: Any, table: Any, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Do what `online_write_batch` does."""
        client = self._connect_async(config)
        write = client.register_script(_WRITE)
        with _errors():
            await client.set(*_schema(config, table))
            for keys, arguments in self._writes(config, table, data):
                _check(await write(keys=keys, args=arguments), keys)
        if progress:
            progress(len(data))

    def online_read(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> list[Row]:
        """Return (event_ts, values) per entity; (None, None) where there is no row or one older than the view's ttl."""
        return self._read(config, [(table, entity_keys, requested_features)])[0]

    async def online_read_async(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> list[Row]:
        """Do what `online_read` does."""
        return (await self._read_async(config, [(table, entity_keys, requested_features)]))[0]

    def update(
        self,
        config: Any,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Delete the rows of views that are no more."""
        del tables_to_keep, entities_to_delete, entities_to_keep, partial
        self._delete(config, tables_to_delete)

    def plan(self, config: Any, desired_registry_proto: Any) -> list[Any]:
        """Return what has to be built for a registry: nothing, keys come with rows."""
        del config, desired_registry_proto
        return []

    def teardown(self, config: Any, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Delete the rows of the repository's views and close the connections."""
        del entities
        self._delete(config, tables)
        self._client.close()
        self._client = None

    async def close(self) -> None:
        """Close the event loop's connections."""
        client, self._async_client = self._async_client, None
        if client is not None and client[0] is asyncio.get_running_loop():
            await client[1].aclose()

    def _read_features_per_fv(self, config: Any, grouped_refs: Any, *rest: Any) -> None:
        """Read all views of a request in one round trip; Feast's stock stores override this too."""
        asked = [_asked(table, features, *rest[:2]) for table, features in grouped_refs]
        found = self._read(config, [(each.table, each.entities, each.features) for each in asked])
        for each, rows in zip(asked, found, strict=True):
            each.answer(rows, *rest[2:])

    async def _read_features_per_fv_async(self, config: Any, grouped_refs: Any, *rest: Any) -> None:
        """Do what `_read_features_per_fv` does."""
        asked = [_asked(table, features, *rest[:2]) for table, features in grouped_refs]
        found = await self._read_async(config, [(each.table, each.entities, each.features) for each in asked])
        for each, rows in zip(asked, found, strict=True):
            each.answer(rows, *rest[2:])

    def _read(self, config: Any, reads: Sequence[_Read]) -> list[list[Row]]:
        keys = [_keys(config, table, entities) for table, entities, _ in reads]
        client = self._connect(config)
        with _errors():
            values = client.mget([*chain(*keys)]) if any(keys) else []
            parts = self._split(reads, keys, values)
            for table, schema in self._unknown(reads, keys, parts):
                self._learn(schema, client.get(_schema_key(config, table, schema)), table)
        return self._found(reads, keys, parts)

    async def _read_async(self, config: Any, reads: Sequence[_Read]) -> list[list[Row]]:
        keys = [_keys(config, table, entities) for table, entities, _ in reads]
        client = self._connect_async(config)
        with _errors():
            values = await client.mget([*chain(*keys)]) if any(keys) else []
            parts = self._split(reads, keys, values)
            for table, schema in self._unknown(reads, keys, parts):
                self._learn(schema, await client.get(_schema_key(config, table, schema)), table)
        return self._found(reads, keys, parts)

    def _split(
        self, reads: Sequence[_Read], keys: Sequence[Sequence[bytes]], values: Sequence[bytes | None]
    ) -> list[Sequence[bytes | None]]:
        """Return the values per read, and remember the present schemas of the views."""
        for table, _, _ in reads:
            names = _features(table)
            self._schemas[feast_values.schema_id(names)] = names
        ends = list(accumulate(map(len, keys)))
        return [values[end - len(part) : end] for end, part in zip(ends, keys, strict=True)]

    def _found(
        self, reads: Sequence[_Read], keys: Sequence[Sequence[bytes]], parts: Sequence[Sequence[bytes | None]]
    ) -> list[list[Row]]:
        every = zip(reads, keys, parts, strict=True)
        return [self._rows(table, own, values, features) for (table, _, features), own, values in every]

    def _writes(self, config: Any, table: Any, data: Iterable[Any]) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Yield keys and script arguments of the newest row per entity."""
        names = _features(table)
        best: dict[bytes, tuple[tuple[int, int], Any]] = {}
        for entity_key, values, event_ts, created_ts in data:
            event = _microseconds(event_ts)
            rank = (event, event if created_ts is None else _microseconds(created_ts))
            key = _prefix(config, table) + serialize_entity_key(entity_key, config.entity_key_serialization_version)
            if key not in best or rank >= best[key][0]:
                best[key] = (rank, values)
        keys = list(best)
        for begin in range(0, len(keys), _CHUNK):
            part = keys[begin : begin + _CHUNK]
            arguments: list[bytes] = []
            for key in part:
                (event, created), values = best[key]
                arguments += [feast_values.pack(names, values, event, created), b"%d" % self._expiry(table, event)]
            yield part, arguments

    def _expiry(self, table: Any, event: int) -> int:
        """Return when a key may go, ms since 1970; 0: never. The check at read tells expired rows, not this."""
        ttl = _ttl(table)
        return 0 if ttl is None else (max(event + ttl, self._clock.now()) + SLACK) // 1_000

    def _rows(
        self, table: Any, keys: Sequence[bytes], values: Sequence[bytes | None], requested: Sequence[str] | None
    ) -> list[Row]:
        ttl, now = _ttl(table), self._clock.now()
        wanted = list(requested or _features(table))
        rows: list[Row] = []
        for key, value in zip(keys, values, strict=True):
            if value is None:
                rows.append((None, None))
                continue
            event = feast_values.event_time(value, key)
            if ttl is not None and now - event > ttl:
                rows.append((None, None))
                continue
            stored = feast_values.unpack(self._schemas[value[feast_values.SCHEMA]], value)
            row = {name: stored[name] if name in stored else Value() for name in wanted}
            rows.append((datetime.fromtimestamp(event // SECOND, UTC).replace(microsecond=event % SECOND), row))
        return rows

    def _unknown(
        self, reads: Sequence[_Read], keys: Sequence[Sequence[bytes]], parts: Sequence[Sequence[bytes | None]]
    ) -> list[tuple[Any, bytes]]:
        """Return the schemas of values that were written before their view was what it is now."""
        found: dict[bytes, Any] = {}
        for (table, _, _), own, values in zip(reads, keys, parts, strict=True):
            for key, value in zip(own, values, strict=True):
                if value is not None and value[feast_values.SCHEMA] not in self._schemas:
                    feast_values.event_time(value, key)  # refuses what is no row at all
                    found[value[feast_values.SCHEMA]] = table
        return [(table, schema) for schema, table in found.items()]

    def _learn(self, schema: bytes, names: bytes | None, table: Any) -> None:
        if names is None:
            raise CorruptState(f"nobody knows the features of rows of {table.name}", hint="materialize the view again")
        self._schemas[schema] = tuple(json.loads(names))

    def _delete(self, config: Any, tables: Sequence[Any]) -> None:
        client = self._connect(config)
        with _errors():
            for table in tables:
                for prefix in (_prefix(config, table), _schema_key(config, table, b"")):
                    batch: list[bytes] = []
                    for key in client.scan_iter(match=_literal(prefix) + b"*", count=_CHUNK):
                        batch.append(key)
                        if len(batch) == _CHUNK:
                            client.unlink(*batch)
                            batch.clear()
                    if batch:
                        client.unlink(*batch)

    def _connect(self, config: Any) -> Any:
        if self._client is None:
            self._client = _open(redis.Redis, config.online_store)
        return self._client

    def _connect_async(self, config: Any) -> Any:
        """Return the client of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._async_client is None or self._async_client[0] is not loop:
            self._async_client = (loop, _open(redis.asyncio.Redis, config.online_store))
        return self._async_client[1]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a request asks of one view."""

    table: Any
    features: list[str]
    entities: list[Any]
    places: Any
    """Rows of the response per entity."""
    size: int
    """Rows of the response."""

    def answer(self, rows: list[Row], response: Any, full_feature_names: bool, include_versions: bool) -> None:
        """Put the rows into Feast's response."""
        utils._populate_response_from_feature_data(
            self.features, rows, self.places, response, full_feature_names, self.table, self.size, include_versions
        )


def _asked(table: Any, features: list[str], join_key_values: Any, join_keys: Any) -> _Asked:
    values, places, size = utils._get_unique_entities(table, join_key_values, join_keys)
    return _Asked(
        table=table, features=features, entities=utils._get_entity_key_protos(values), places=places, size=size
    )


class _errors:
    """Turns the client's errors into the platform's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, redis.RedisError):
            raise Unavailable(f"the online store cannot be reached: {error}", retry_after_s=1.0) from error


def _open(kind: Any, config: PackedRedisOnlineStoreConfig) -> Any:
    """Return a client of a sync or async class."""
    text = config.connection_string
    timeouts = {"socket_timeout": config.timeout_s, "socket_connect_timeout": config.timeout_s}
    if "://" in text:
        return kind.from_url(text, **timeouts)
    options: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals:
            try:
                options[name] = json.loads(value)
            except json.JSONDecodeError:
                options[name] = value
        else:
            options["host"], _, port = part.partition(":")
            options["port"] = int(port or 6379)
    if "password" in options:
        options["password"] = str(options["password"])
    return kind(**{**timeouts, **options})


def _prefix(config: Any, table: Any) -> bytes:
    name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    return f"headway:o:{config.project}:{name}:".encode()


def _schema_key(config: Any, table: Any, schema: bytes) -> bytes:
    return b"headway:s:" + _prefix(config, table)[len(b"headway:o:") :] + schema.hex().encode()


def _schema(config: Any, table: Any) -> tuple[bytes, bytes]:
    """Return the key and value that say which features the view's rows hold."""
    names = _features(table)
    return _schema_key(config, table, feast_values.schema_id(names)), json.dumps(names).encode()


def _keys(config: Any, table: Any, entity_keys: Sequence[Any]) -> list[bytes]:
    prefix, version = _prefix(config, table), config.entity_key_serialization_version
    return [prefix + serialize_entity_key(entity_key, version) for entity_key in entity_keys]


def _features(table: Any) -> tuple[str, ...]:
    return tuple(feature.name for feature in table.features)


def _ttl(table: Any) -> int | None:
    """Return the view's ttl in microseconds; None: for ever."""
    ttl = getattr(table, "ttl", None)
    return _whole(ttl) if ttl else None


def _whole(span: timedelta) -> int:
    """Return microseconds."""
    return (span.days * 86_400 + span.seconds) * SECOND + span.microseconds


def _microseconds(moment: datetime) -> int:
    return _whole(utils.make_tzaware(moment) - datetime(1970, 1, 1, tzinfo=UTC))


def _literal(text: bytes) -> bytes:
    """Return a pattern that matches the text itself."""
    return b"".join(
        b"\\" + text[i : i + 1] if text[i : i + 1] in b"*?[]\\^" else text[i : i + 1] for i in range(len(text))
    )


def _check(foreign: Sequence[int], keys: Sequence[bytes]) -> None:
    if foreign:
        raise CorruptState(
            f"the key {keys[foreign[0] - 1]!r} holds a value that PackedRedisOnlineStore did not write",
            hint="delete it and materialize the view again",
        )
