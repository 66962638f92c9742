"""The process that hands spools to the lake: one named, detached Ray actor per use case, started by every deploy."""

from __future__ import annotations

import logging
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from headway.cluster.compose import Installation
from headway.cluster.spools import drain_spools
from headway.core import ray_session
from headway.core.errors import ServiceFailed

INTERVAL_S = 5.0
_START_S = 60.0
_LOG = logging.getLogger(__name__)


class Drainer:
    """Drains every few seconds; rows that could not be committed stay in their files and are tried again."""

    def __init__(self, use_case: str) -> None:
        ray_session.run_in_background()
        self._use_case = use_case
        self._rows = 0
        self._error = ""
        self._thread = Thread(target=self._run, name=f"drain-{use_case}", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """Return the rows committed since the start and the last error, empty while all is well."""
        return {"rows": self._rows, "error": self._error}

    def _run(self) -> None:
        at: Installation | None = None
        pause = Event()
        while True:
            try:
                at = at or Installation.running(writer=f"drainer-{self._use_case}")
                self._rows += drain_spools(at, self._use_case)
                self._error = ""
            except Exception as error:  # the files are still there: the next round tries again
                if str(error) != self._error:
                    _LOG.warning("spools of %s: %s", self._use_case, error)
                self._error = str(error)
            pause.wait(INTERVAL_S)


def start_drainer(at: Installation, use_case: str) -> None:
    """Start the use case's drainer, anew if it runs, since definitions may have changed; it may be killed at any point.

    ServiceFailed if it does not answer.
    """
    ray_session.connect(at.settings)
    import ray

    name = f"headway-drainer-{use_case}"
    with suppress(ValueError):  # what Ray raises where there is none
        ray.kill(ray.get_actor(name, namespace=ray_session.NAMESPACE), no_restart=False)
    actor = (
        ray.remote(Drainer)
        .options(
            name=name,
            namespace=ray_session.NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=2,
        )
        .remote(use_case)
    )
    try:
        ray.get(actor.status.remote(), timeout=_START_S)
    except ray.exceptions.RayError as error:
        raise ServiceFailed(f"the drainer of {use_case} did not start: {error}", hint="headway status") from error
