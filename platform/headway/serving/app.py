"""The Ray Serve application of a use case: one deployment whose replica is an Assembly behind bare ASGI.

Contract and model are verified in the constructor, so a replica that may not serve never becomes healthy, however it
was started: by `headway deploy`, `serve run` or KubeRay.
"""

from __future__ import annotations

import os
from typing import Any

from ray import serve

from headway.core import ray_session
from headway.core.settings import load_settings
from headway.serving.batching import MAX_BATCH_ROWS
from headway.serving.replica import OPTIONS, Replica, replica_name


@serve.ingress()
class UseCaseReplica(Replica):
    """One replica of a use case."""

    def __init__(self, use_case: str, max_batch_rows: int = MAX_BATCH_ROWS) -> None:
        from headway.core.clock import SystemClock
        from headway.core.platform_state import resolved_settings
        from headway.core.telemetry.ray_metrics import RayMetrics
        from headway.serving.assembly import assemble

        replica = replica_name(use_case, SystemClock().now())
        assembly = assemble(
            use_case, resolved_settings(), replica=replica, sink=RayMetrics(), max_batch_rows=max_batch_rows
        )
        self._load = assembly.load
        super().__init__(f"/{use_case}", assembly, lanes=assembly.service)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve how loaded this replica is (`headway.serving.autoscaling`)."""
        return self._load.read()


def build(use_case: str, *, max_batch_rows: int = MAX_BATCH_ROWS, **options: Any) -> Any:
    """Return the application; nothing is loaded before a replica starts.

    `max_batch_rows` bounds the rows that are scored together, `options` are those of the deployment.
    In a shell of its own (`serve run serve_apps.fraud:app`) the process first learns where the platform is.
    """
    if "RAY_ADDRESS" not in os.environ:
        ray_session.prepare(load_settings())
    return serve.deployment(name="decide", **OPTIONS | options)(UseCaseReplica).bind(use_case, max_batch_rows)
