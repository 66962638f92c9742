from __future__ import annotations

import os
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
    processes = []
    for _ in range(3):
        start_drainer(at, "nobody")
        actor: Any = ray.get_actor("headway-drainer-nobody", namespace=module.NAMESPACE)
        processes.append(ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=60))
        assert ray.get(actor.status.remote(), timeout=60)["rows"] == 0
    ray.kill(actor)
    assert len(set(processes)) == 3
