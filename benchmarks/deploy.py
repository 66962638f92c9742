"""Deploys one use case onto a running platform, in a process of its own: Ray and Serve read their environment once.

`python -m benchmarks.deploy HOME PROJECT USE_CASE`; prints `ready` once the application runs.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Deploy and leave."""
    from headway.core.platform_state import resolved_settings
    from headway.core.ray_session import start_serve

    home, project, use_case = sys.argv[1:4]
    start_serve(resolved_settings(home=home, project=project))
    from ray import serve

    from headway.serving import application

    serve.run(application(use_case), name=use_case, route_prefix=f"/{use_case}")
    print("ready", flush=True)


if __name__ == "__main__":
    main()
