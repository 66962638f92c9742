from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from headway.core import ray_session
from headway.serving import hook
from tests.serving.helpers import run


async def _receive() -> dict[str, Any]:
    return {"type": "http.request"}


async def _send(message: Any) -> None:
    raise AssertionError(f"unexpected {message}")


def _app(name: str, seen: list[tuple[str, str]]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((name, scope.get("root_path", "")))

    return app


def test_registered_prefixes_are_answered_and_the_rest_passes_on() -> None:
    seen: list[tuple[str, str]] = []

    async def work() -> None:
        hot = hook.HotPath(_app("serve", seen))
        for prefix in ("/toy", "/v1/events"):
            hook.register(prefix, _app("ours", seen), asyncio.get_running_loop())
        try:
            for path in ("/toy/v1/decisions", "/toy", "/toyota/v1", "/-/healthz", "/other/toy"):
                await hot({"type": "http", "path": path}, _receive, _send)
            for path in ("/v1/events", "/v1/events/sales", "/v1", "/v1/eventsales", "/x/v1/events"):
                await hot({"type": "http", "path": path}, _receive, _send)
            await hot({"type": "lifespan", "path": "/toy"}, _receive, _send)
        finally:
            hook.unregister("/toy")
            hook.unregister("/v1/events")
        await hot({"type": "http", "path": "/toy/v1"}, _receive, _send)

    run(work())
    ours = [("ours", "/toy")] * 2 + [("serve", "")] * 3 + [("ours", "/v1/events")] * 2
    assert seen == [*ours, *[("serve", "")] * 5]


def test_another_loop_is_not_ours() -> None:
    seen: list[tuple[str, str]] = []
    other = asyncio.new_event_loop()
    hook.register("/toy", _app("ours", seen), other)
    try:
        run(hook.HotPath(_app("serve", seen))({"type": "http", "path": "/toy/v1"}, _receive, _send))
    finally:
        hook.unregister("/toy")
        other.close()
    assert seen == [("serve", "")]


_INSTALL = """
from ray.serve._private.http_util import _apply_middlewares, configure_http_middlewares
from ray.serve.config import HTTPOptions
from headway.serving.hook import HotPath
app = _apply_middlewares(None, configure_http_middlewares(HTTPOptions()).middlewares)
print("hooked" if isinstance(app, HotPath) else "not hooked")
"""


def test_the_ingress_hears_of_a_replica_that_is_not_ready() -> None:
    seen: list[tuple[str, str]] = []
    answers: list[Any] = []
    ready = {"/toy": True, "/other": True}

    async def keep(message: Any) -> None:
        answers.append(message)

    async def work() -> None:
        hot = hook.HotPath(_app("serve", seen))
        for prefix in ("/toy", "/other"):
            asks = partial(ready.__getitem__, prefix)
            hook.register(prefix, _app("ours", seen), asyncio.get_running_loop(), ready=asks)
        try:
            await hot({"type": "http", "path": hook.HEALTH}, _receive, keep)
            ready["/other"] = False
            await hot({"type": "http", "path": hook.HEALTH}, _receive, keep)
            # who is sent here all the same gets the application's own answer
            await hot({"type": "http", "path": "/other/v1/decisions"}, _receive, keep)
        finally:
            for prefix in ready:
                hook.unregister(prefix)
        await hot({"type": "http", "path": hook.HEALTH}, _receive, keep)

    run(work())
    assert seen == [("serve", ""), ("ours", "/other"), ("serve", "")]
    assert [message.get("status") for message in answers] == [503, None]


@pytest.mark.parametrize(("path", "said"), [(hook.IMPORT_PATH, "hooked"), ("", "not hooked")])
def test_serve_installs_what_the_switch_names(path: str, said: str) -> None:
    """A Ray that no longer does is noticed before a platform is started; an empty name is the switch's off."""
    environment = {**os.environ, hook.SWITCH: path, "RAY_SERVE_ENABLE_HA_PROXY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _INSTALL], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip().splitlines()[-1] == said


def test_the_session_and_the_hook_speak_of_the_same() -> None:
    assert (ray_session.HOOK, hook.SWITCH) == (hook.IMPORT_PATH, "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH")
