"""Starts Serve on a home's cluster and ends; run while the head still starts, so that its imports cost no time.

A process of its own: Serve reads its environment at import, and the caller of `up` may have imported it already.
"""

from __future__ import annotations

import sys
import time

from headway.cluster.local.service import accepts
from headway.core.platform_state import read_state
from headway.core.ray_session import start_serve
from headway.core.settings import load_settings

_WAIT_S = 220.0
_POLL_S = 0.1


def main(home: str, project: str) -> int:
    """Wait for the head, start Serve, return 0."""
    import ray
    from ray import serve  # noqa: F401 - imported while the head starts

    settings = load_settings(home=home, project=project)
    state = read_state(settings.home)
    if state is None:
        sys.stderr.write(f"no platform state in {home}\n")
        return 1
    deadline = time.monotonic() + _WAIT_S
    while not (accepts(state.ports["ray-gcs"]) and accepts(state.ports["ray-node-manager"])):
        if time.monotonic() > deadline:
            sys.stderr.write("the Ray head did not come up\n")
            return 1
        time.sleep(_POLL_S)
    start_serve(settings)
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
