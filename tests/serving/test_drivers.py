from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.core.counts import RedisCountsChannel
from headway.core.errors import DefinitionError
from headway.core.settings import Settings, load_settings
from headway.governance.audit import audit_log
from headway.serving.drivers import Drivers, open_drivers
from tests.features.streams.world import until
from tests.features.valkey import serving
from tests.serving.helpers import NOW, service, terms
from tests.serving.test_host import load

KEYS = {"customer_id": np.array([1], np.int64), "shop": np.array(["a"], object)}


def settings_of(folder: Path, url: str, **more: Any) -> Settings:
    return load_settings(home=folder, redis_control_url=url, redis_features_url=url, **more)


def opened(settings: Settings) -> Drivers:
    clock = SystemClock()
    audit = audit_log(settings, "test", clock)
    return open_drivers("toy", settings, service, terms(), replica="r", load=load, audit=audit, clock=clock)


def issuers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "headway-jwks"]


def test_everything_that_was_opened_is_closed(tmp_path: Path) -> None:
    with serving() as server, redis.Redis.from_url(server.url) as admin:
        settings = settings_of(tmp_path, server.url, oidc_issuers=("https://127.0.0.1:1",))

        async def work() -> None:
            drivers = opened(settings)
            assert drivers.meeting is not None
            assert isinstance(drivers.channel, RedisCountsChannel)
            drivers.store.get("k")
            drivers.channel.read("toy", "")
            await drivers.reader.read(KEYS, np.array([NOW], np.int64))
            await drivers.meeting.answers.claim(b"k", b"v", 1.0)
            assert len(admin.client_list()) == 5
            assert issuers()
            await drivers.leave()
            await asyncio.to_thread(drivers.close)

        asyncio.run(work())
        until(lambda: len(admin.client_list()) == 1)
        assert not issuers()


def test_nothing_stays_open_where_one_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[RedisControlStore] = []

    def close(store: RedisControlStore) -> None:
        closed.append(store)

    monkeypatch.setattr(RedisControlStore, "close", close)
    with pytest.raises(DefinitionError, match="redis_features_url"):
        opened(settings_of(tmp_path, "unix:///nowhere").model_copy(update={"redis_features_url": "http://store"}))
    assert len(closed) == 1
