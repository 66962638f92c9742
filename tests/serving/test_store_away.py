from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.features.online import OnlineReader
from tests.features.valkey import Valkey
from tests.serving.helpers import Toy, service
from tests.serving.test_service import body

AWAY = ["features:activity", "features:shops"]


@pytest.fixture
def server() -> Iterator[Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="v"))
    server = Valkey(folder)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder)


async def decide(toy: Toy) -> dict[str, Any]:
    _, _, answer = await toy.http("POST", "/v1/decisions", body(90))
    decision: dict[str, Any] = json.loads(answer)["decisions"][0]
    return decision


async def recovered(toy: Toy) -> dict[str, Any]:
    """Ask until the champion answers."""
    deadline = time.monotonic() + 60
    while (decision := await decide(toy))["arm"] != "champion":
        assert decision["degraded"] == AWAY
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return decision


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_store_that_goes_away_is_left_alone_and_found_again(tmp_path: Path, server: Valkey, fault: str) -> None:
    """The rules answer within the reader's patience, and the same process goes on when the server is back."""
    reader = OnlineReader(service, server.url, timeout_s=0.3)
    toy = Toy(tmp_path, store=reader, deadline_s=20.0)

    async def work(t: Toy) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
        before = await recovered(t)
        (server.kill if fault == "kill" else server.freeze)()
        during = [await decide(t) for _ in range(20)]
        (server.start if fault == "kill" else server.thaw)()
        after = await recovered(t)
        await reader.close()
        return before, during, after

    before, during, after = toy.call(work)
    assert before["arm"] == after["arm"] == "champion"
    assert [(one["arm"], one["degraded"]) for one in during] == [("rules", AWAY)] * 20
    assert not set(after["degraded"]) & set(AWAY)
