from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster.compose import Installation
from headway.cluster.drainer import start_drainer
from headway.core import ray_session as module


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_deployment_starts_the_drainer_anew_for_its_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(module, "connect", lambda settings: None)
    at = cast(Installation, SimpleNamespace(settings=None))
    processes: set[int] = set()
    for expected in range(1, 4):
        start_drainer(at, "nobody")
        actor: Any = ray.get_actor("headway-drainer-nobody", namespace=module.NAMESPACE)
        deadline = time.monotonic() + 60
        while len(processes) < expected:  # Ray kills in the background: the one before may still answer once
            assert time.monotonic() < deadline
            processes.add(ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=60))
        assert ray.get(actor.status.remote(), timeout=60)["rows"] == 0
    ray.kill(actor)
