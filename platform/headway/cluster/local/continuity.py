"""Whether the features Redis still has all it was given: it saves now and then, and a crash takes what came after.

Each start is marked in the server with its run id, and on disk at once; a proper stop marks the same id as closed. A
server that comes up with an id that was never closed lost writes: its watermarks are dropped, so that reads say that
they are behind instead of being silently wrong, and the next ingestion or deployment fills the views from the lake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from headway.core.errors import Unavailable
from headway.core.platform_state import PlatformState

_OPENED, _CLOSED = "headway:opened", "headway:closed"
_PROGRESS = ("headway:w:*", "headway:m:*", "headway:p:*")
"""Watermarks, how far views were materialised, and how far the partitions of streams were."""


def opened(state: PlatformState) -> bool:
    """Mark the running server as opened; return whether it had lost writes, which costs the views their watermarks.

    Asking again of the same run changes nothing.
    """
    with _client(state) as client:
        run: str = client.info("server")["run_id"]
        before, closed = client.mget(_OPENED, _CLOSED)
        if before == run:
            return False
        lost = before is not None and closed != before
        if lost:
            for pattern in _PROGRESS:
                for key in list(client.scan_iter(match=pattern, count=1_000)):
                    client.unlink(key)
        client.set(_OPENED, run)
        client.delete(_CLOSED)
        client.save()
        return lost


def closing(state: PlatformState) -> None:
    """Mark a server that is about to stop, and save, as whole."""
    with _client(state) as client:
        client.set(_CLOSED, client.info("server")["run_id"])


@contextmanager
def _client(state: PlatformState) -> Iterator[Any]:
    client: Any = redis.Redis.from_url(
        state.redis_features_url, decode_responses=True, socket_timeout=60.0, socket_connect_timeout=5.0
    )
    try:
        yield client
    except redis.RedisError as error:
        raise Unavailable(f"the features Redis: {error}", retry_after_s=1.0, hint="headway status") from error
    finally:
        client.close()
