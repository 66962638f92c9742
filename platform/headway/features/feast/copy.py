"""The features of window views as Feast rows, for clients that read with Feast: its own Redis store, or ours.

A window moves on between events while a stored value stays: what such a client reads is as of the write, and the view
says so in the registry by the tag `as_of: write`. Whatever decides in time reads with `OnlineReader`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import redis

from headway.core.clock import Clock
from headway.core.settings import Settings
from headway.features import catalogue
from headway.features.definitions import WindowView
from headway.features.entities import key_parts
from headway.features.link import away
from headway.features.windows import codec
from headway.features.windows.columns import plan_of, window_columns

_CHUNK = 512


def copy(view: WindowView, settings: Settings, clock: Clock) -> int:
    """Write the features of every key of a view as they are now, in both layouts; return the keys.

    The view must be in the registry: NotFound says how. Unavailable where the store is away.
    """
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    from headway.features.feast.online import PackedRedisOnlineStore
    from headway.features.feast.rows import moment

    table, config = catalogue.feast_view(view.name, settings), _config(settings)
    plan, start = plan_of(view), codec.prefix(view)
    client: Any = redis.Redis.from_url(settings.redis_features_url)
    online, written = PackedRedisOnlineStore(clock), 0
    try:
        names = sorted(set(client.scan_iter(match=start + b"*", count=_CHUNK)))
        for begin in range(0, len(names), _CHUNK):
            part = names[begin : begin + _CHUNK]
            events, _ = codec.unpack(view, client.mget(part), plan.layout)
            now = clock.now()
            found = window_columns(plan, events, np.arange(len(part)), np.full(len(part), now, np.int64))
            columns = {name: found.columns[name].tolist() for name in view.features}
            data = []
            for i, name in enumerate(part):
                parts = key_parts(name[len(start) :].decode(), view.entity.dtypes)
                key = EntityKey(
                    join_keys=view.entity.keys,
                    entity_values=[Value(string_val=p) if isinstance(p, str) else Value(int64_val=p) for p in parts],
                )
                row = {
                    feature: Value() if values[i] != values[i] else Value(float_val=values[i])
                    for feature, values in columns.items()
                }
                data.append((key, row, moment(now), moment(now)))
            online.online_write_batch(config, table, data, None)
            written += len(part)
    except redis.RedisError as error:
        raise away(error) from error
    finally:
        online.disconnect()
        client.close()
    return written


def _config(settings: Settings) -> Any:
    """Return the repository that the registry belongs to."""
    from feast import RepoConfig

    return RepoConfig(
        project=catalogue.PROJECT,
        provider="local",
        registry=str(catalogue.registry_path(settings)),
        online_store={
            "type": "headway.features.online_store.PackedRedisOnlineStore",
            "connection_string": settings.redis_features_url,
            "dual_write": True,
        },
        entity_key_serialization_version=3,
    )
