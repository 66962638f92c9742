"""Deploys one use case onto a running platform, in a process of its own: Ray and Serve read their environment once.

`python -m benchmarks.deploy HOME PROJECT USE_CASE [OPTIONS]`, OPTIONS as JSON; ends once all replicas are new.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Deploy and leave."""
    from headway.core.platform_state import resolved_settings
    from headway.core.ray_session import start_serve

    home, project, use_case = sys.argv[1:4]
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    start_serve(resolved_settings(home=home, project=project))
    from headway.cluster.applications import run_application
    from headway.serving import application

    run_application(use_case, application(use_case, **options), f"/{use_case}")


if __name__ == "__main__":
    main()
