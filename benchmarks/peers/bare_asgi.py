"""Our own decision code under plain uvicorn: no Ray, no proxy. What the way through Serve costs is read off it.

The same assembly as a replica of the platform: contract, verified model, token, online features, counts, durable log.
"""

from __future__ import annotations

import gc
import os
from typing import Any


def create() -> Any:
    """Return the gateway of the use case that BENCHMARK_USE_CASE names, on the platform of HEADWAY_HOME."""
    from headway.core.platform_state import resolved_settings
    from headway.serving.assembly import assemble

    gateway = assemble(os.environ["BENCHMARK_USE_CASE"], resolved_settings(), replica="bare").gateway
    gc.collect()  # as a replica does
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    return gateway
