"""A Feast online store on Redis: one packed value per (view, entity), written by compare-and-set, its ttl kept at read.

Name it in a repository's `feature_store.yaml` (docs/feast.md says how it differs from Feast's own):
`online_store: {type: headway.features.online_store.PackedRedisOnlineStore, connection_string: "localhost:6379"}`
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, Literal

from feast import utils
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel

from headway.core.clock import Clock, SystemClock
from headway.core.errors import CorruptState
from headway.features.feast import rows as feast_rows
from headway.features.feast import values as feast_values
from headway.features.feast.server import AsyncServer, Server

Row = tuple[Any, dict[str, Any] | None]
"""Event time and values, both None where there is no row."""
_Read = tuple[Any, list[Any], list[str] | None]
"""View, entity keys, requested features."""


class PackedRedisOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast publishes no types
    """The `online_store` section of feature_store.yaml."""

    type: Literal[
        "headway.features.online_store.PackedRedisOnlineStore", "headway.features.feast.online.PackedRedisOnlineStore"
    ] = "headway.features.online_store.PackedRedisOnlineStore"
    """The class."""
    redis_type: Literal["redis", "redis_cluster"] = "redis"
    """One server (or what looks like one), or a cluster."""
    connection_string: str = "localhost:6379"
    """`host:port,db=0,ssl=true,password=…` as in Feast's Redis store, with one host:port or several of a cluster, or a
    URL: redis://, rediss://, unix://."""
    timeout_s: float = 10.0
    """Seconds after which a call is given up."""
    dual_write: bool = False
    """Write rows in the layout of Feast's own Redis store too, for clients that still use it. Not on a cluster."""


class PackedRedisOnlineStore(OnlineStore):  # type: ignore[misc]  # Feast publishes no types
    """Feast's online store interface over packed values."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._server: Server | None = None
        self._async_server: tuple[Any, AsyncServer] | None = None
        self._schemas: dict[bytes, tuple[str, ...]] = {}

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Both."""
        return SupportedAsyncMethods(read=True, write=True)

    def online_write_batch(
        self, config: Any, table: Any, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows unless the stored one is newer by (event_ts, created_ts); a missing created_ts is the event_ts."""
        server = self._connect(config)
        server.put(*feast_rows.schema_of(config, table))
        server.write(feast_rows.writes(config, table, data, self._clock.now()))
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: Any, table: Any, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Do what `online_write_batch` does."""
        server = self._connect_async(config)
        await server.put(*feast_rows.schema_of(config, table))
        await server.write(feast_rows.writes(config, table, data, self._clock.now()))
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
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connections of synchronous calls."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def close(self) -> None:
        """Close the event loop's connections."""
        server, self._async_server = self._async_server, None
        if server is not None and server[0] is asyncio.get_running_loop():
            await server[1].close()

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
        keys = [feast_rows.keys_of(config, table, entities) for table, entities, _ in reads]
        server = self._connect(config)
        parts = self._split(reads, keys, server.get([*chain(*keys)]))
        for table, schema in self._unknown(reads, keys, parts):
            self._learn(schema, server.get([feast_rows.schema_key(config, table, schema)])[0], table)
        return self._found(reads, keys, parts)

    async def _read_async(self, config: Any, reads: Sequence[_Read]) -> list[list[Row]]:
        keys = [feast_rows.keys_of(config, table, entities) for table, entities, _ in reads]
        server = self._connect_async(config)
        parts = self._split(reads, keys, await server.get([*chain(*keys)]))
        for table, schema in self._unknown(reads, keys, parts):
            self._learn(schema, (await server.get([feast_rows.schema_key(config, table, schema)]))[0], table)
        return self._found(reads, keys, parts)

    def _split(
        self, reads: Sequence[_Read], keys: Sequence[Sequence[bytes]], values: Sequence[bytes | None]
    ) -> list[Sequence[bytes | None]]:
        """Return the values per read, and remember the present schemas of the views."""
        for table, _, _ in reads:
            names = feast_rows.features(table)
            self._schemas[feast_values.schema_id(names)] = names
        ends = list(accumulate(map(len, keys)))
        return [values[end - len(part) : end] for end, part in zip(ends, keys, strict=True)]

    def _found(
        self, reads: Sequence[_Read], keys: Sequence[Sequence[bytes]], parts: Sequence[Sequence[bytes | None]]
    ) -> list[list[Row]]:
        every = zip(reads, keys, parts, strict=True)
        return [self._rows(table, own, values, features) for (table, _, features), own, values in every]

    def _rows(
        self, table: Any, keys: Sequence[bytes], values: Sequence[bytes | None], requested: Sequence[str] | None
    ) -> list[Row]:
        ttl, now = feast_rows.ttl(table), self._clock.now()
        wanted = list(requested or feast_rows.features(table))
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
            rows.append((feast_rows.moment(event), row))
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
        server = self._connect(config)
        for table in tables:
            server.unlink(feast_rows.pattern(feast_rows.prefix(config, table)))
            server.unlink(feast_rows.pattern(feast_rows.schema_key(config, table, b"")))
            if config.online_store.dual_write:
                stock = RedisOnlineStore()
                stock._client = server.client
                stock.delete_table(config, table)

    def _connect(self, config: Any) -> Server:
        if self._server is None:
            self._server = Server(config.online_store)
        return self._server

    def _connect_async(self, config: Any) -> AsyncServer:
        """Return the connection of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._async_server is None or self._async_server[0] is not loop:
            self._async_server = (loop, AsyncServer(config.online_store))
        return self._async_server[1]


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
