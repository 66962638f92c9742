"""The Serve application at `/v1/events`: one for all sources of the project, because use cases share them.

It judges events by the sources and views of the definitions that it was deployed with, so `headway stream run`
deploys it anew. Locally and by KubeRay it is the same application (`serve_config.events_config`).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve

from headway.cluster.applications import base_url, run_application
from headway.cluster.compose import Installation
from headway.cluster.serve_config import EVENTS, INGEST, events_config
from headway.cluster.stream_parts import views_of
from headway.core import ray_session
from headway.core.clock import Clock
from headway.features.definitions import EventSource
from headway.features.streams.port import EventStream
from headway.features.streams.publishing import Judge
from headway.serving.events import PREFIX, EventLimits, EventService
from headway.serving.gateway import Gateway
from headway.serving.replica import OPTIONS, Replica, replica_name
from headway.serving.service import Verifier


class EventParts:
    """One replica's parts."""

    def __init__(
        self,
        judges: dict[str, Judge],
        *,
        stream: EventStream,
        verifier: Verifier,
        clock: Clock,
        limits: EventLimits | None = None,
    ) -> None:
        self._stream = stream
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")
        self.service = EventService(
            judges, stream=stream, verifier=verifier, clock=clock, executor=self._executor, limits=limits
        )
        self.gateway = Gateway(self.service, on_start=self.start, on_stop=self.stop)
        self.inference = None

    async def start(self) -> None:
        """Nothing: work begins with a request."""

    async def stop(self) -> None:
        """Publish what was accepted, then let go."""
        await self.service.batcher.idle()
        self._executor.shutdown(wait=False)
        await asyncio.get_running_loop().run_in_executor(None, self._stream.close)

    @property
    def ready(self) -> bool:
        """Always: what the stream cannot take is refused by itself."""
        return True

    def require_alive(self) -> None:
        """Nothing: there is no background work."""


@serve.ingress()
class EventReplica(Replica):
    """One replica."""

    def __init__(self) -> None:
        from headway.core.clock import SystemClock
        from headway.core.platform_state import resolved_settings

        settings, clock = resolved_settings(), SystemClock()
        at = Installation(settings, writer=replica_name(EVENTS, clock.now()), clock=clock)
        parts = EventParts(
            judges_of(at),
            stream=at.stream,
            verifier=at.verifier,
            clock=at.clock,
        )
        super().__init__(PREFIX, parts)


def judges_of(at: Installation) -> dict[str, Judge]:
    """Return by source who judges its events, for all views that its processors feed."""
    return {source.name: Judge(source, views_of(at, source)) for source in at.project.collect("features", EventSource)}


def application(options: dict[str, Any] | None = None) -> Any:
    """Return the Serve application; `options` override deployment options. KubeRay calls it by its import path."""
    return serve.deployment(name=INGEST, **OPTIONS | (options or {}))(EventReplica).bind()


def deploy_events(at: Installation) -> str:
    """Roll the application out beside the others, and return its address.

    It is the same act the first time and after definitions changed: new replicas start beside the old ones, which stop
    once the new ones answer. Raises ServiceFailed where they do not; the old ones still serve.
    """
    ray_session.start_serve(at.settings)
    (deployment,) = events_config()["deployments"]
    options = {name: value for name, value in deployment.items() if name != "name"}
    run_application(EVENTS, application(options), PREFIX)
    return f"{base_url(at)}{PREFIX}"
