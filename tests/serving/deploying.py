"""Deploys a use case onto a running platform: `python -m tests.serving.deploying HOME PROJECT USE_CASE OPTIONS`.

A process of its own, because Ray and Serve read their environment once. OPTIONS are deployment options as JSON.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    from headway.core.platform_state import resolved_settings
    from headway.core.ray_session import start_serve

    home, project, use_case, options = sys.argv[1:5]
    start_serve(resolved_settings(home=home, project=project))
    from headway.cluster.applications import run_application
    from headway.serving import application

    run_application(use_case, application(use_case, **json.loads(options)), f"/{use_case}")
    sys.stdout.write("ready\n")


if __name__ == "__main__":
    main()
