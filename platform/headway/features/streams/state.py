"""How much a window view holds in the online store: counted key by key, without holding more than a few."""

from __future__ import annotations

from threading import Event
from typing import Any

import numpy as np
import redis

from headway.features.definitions import WindowView
from headway.features.link import away
from headway.features.status import SLACK
from headway.features.streams.status import Budget, StateSize
from headway.features.windows import codec
from headway.features.windows.scan import EVENT, NEVER
from headway.features.windows.tiles import LATEST, tile_layout

_CHUNK = 512
_PAUSE_S = 0.01


def measure(url: str, view: WindowView, budget: Budget, now: int) -> StateSize:
    """Return keys, bytes and overdue keys of a view; reads all of its values once."""
    client: Any = redis.Redis.from_url(url, socket_timeout=10.0, decode_responses=False)
    layout = None if view.exact else tile_layout(view)
    keys = size = overdue = 0
    try:
        names: list[bytes] = []
        for name in client.scan_iter(match=codec.prefix(view) + b"*", count=_CHUNK):
            names.append(name)
            if len(names) == _CHUNK:
                count, more, late = _chunk(client, view, layout, names, budget, now)
                keys, size, overdue = keys + count, size + more, overdue + late
                names.clear()
        count, more, late = _chunk(client, view, layout, names, budget, now)
    except redis.RedisError as error:
        raise away(error) from error
    finally:
        client.close()
    return StateSize(view=view.name, keys=keys + count, bytes=size + more, overdue=overdue + late)


def length(url: str, view: WindowView, stop: Event) -> int:
    """Return the bytes of a view's keys and values; reads only lengths, with pauses, until told to stop."""
    client: Any = redis.Redis.from_url(url, socket_timeout=10.0, decode_responses=False)
    size, cursor = 0, 0
    try:
        while not stop.wait(_PAUSE_S):
            cursor, names = client.scan(cursor, match=codec.prefix(view) + b"*", count=_CHUNK)
            with client.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.strlen(name)
                size += sum(map(len, names)) + sum(pipeline.execute())
            if cursor == 0:
                break
    except redis.RedisError as error:
        raise away(error) from error
    finally:
        client.close()
    return size


def _chunk(
    client: Any, view: WindowView, layout: Any, names: list[bytes], budget: Budget, now: int
) -> tuple[int, int, int]:
    if not names:
        return 0, 0, 0
    with client.pipeline(transaction=False) as pipeline:
        pipeline.mget(names)
        for name in names:
            pipeline.pttl(name)
        stored, *ttls = pipeline.execute()
    lasting = np.array([ttl == -1 for ttl, value in zip(ttls, stored, strict=True) if value is not None], np.bool_)
    values = [value for value in stored if value is not None]
    if not values:
        return 0, 0, 0
    size = sum(map(len, values)) + sum(map(len, names))
    if view.horizon is None:
        return len(values), size, 0
    events, _ = codec.unpack(view, values, layout)
    newest = np.full(len(values), NEVER)
    np.maximum.at(newest, np.repeat(np.arange(len(values)), np.diff(events.offsets)), events.records[:, EVENT])
    if events.tiles is not None:
        owners = np.repeat(np.arange(len(values)), np.diff(events.tiles.offsets))
        np.maximum.at(newest, owners, events.tiles.records[:, LATEST])
    overdue = lasting & (newest != NEVER) & (newest < now - view.horizon - SLACK - budget.key_age)
    return len(values), size, int(overdue.sum())
