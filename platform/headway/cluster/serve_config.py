"""The Serve configuration of a use case: one function, so that what runs on a laptop is what KubeRay applies.

It names no model version (the routing record does) and no address (each installation's proxy does), so that applying it
again changes nothing, here or there.
"""

from __future__ import annotations

import copy
from typing import Any

from headway.core.errors import InvalidValue
from headway.core.project import Project
from headway.governance.contract import Contract, load_contract
from headway.serving.events import PREFIX

DEPLOYMENT = "decide"
"""Name of the deployment in `headway.serving.app`."""
EVENTS = "events"
"""Name of the application that takes events."""
INGEST = "ingest"
"""Name of its deployment, in `headway.cluster.events`."""
REPLICA: dict[str, Any] = {
    "num_cpus": 0.2,
    # a laptop's node has no market, which is not spot either
    "label_selector": {"ray.io/market-type": "!spot"},
}
"""What a replica asks of a node: it coordinates one core's work, and never sits on a machine that may vanish."""
_REDUNDANT_FROM = 0.999
"""Availability from which one replica, restarting, would use up the month's budget (43 minutes) too soon."""


def serve_config(
    use_case: str,
    *,
    contract: Contract | None = None,
    project: Project | None = None,
    replicas: int | None = None,
    deployment: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the configuration of one application, in the form of Ray's ServeDeploySchema.

    Args:
        use_case: Name, route and import path.
        contract: The use case's contract; loaded from the project if not given.
        project: Where to load it from; the working directory if not given.
        replicas: Overrides the number that availability asks for (benchmarks run one).
        deployment: Further deployment options, which win.
    """
    if contract is None:
        from pathlib import Path

        project = project or Project(Path.cwd())
        contract = load_contract(project.app_folder(use_case) / "contract.yaml", name=use_case).contract
    count = min_replicas(contract) if replicas is None else replicas
    if count < 1:
        raise InvalidValue("replicas", f"{count} is less than 1")
    return {
        "applications": [
            {
                "name": use_case,
                "route_prefix": f"/{use_case}",
                "import_path": f"serve_apps.{use_case}:app",
                "deployments": [
                    {
                        "name": DEPLOYMENT,
                        "num_replicas": count,
                        # at one replica a rolling update would otherwise stop the old before the new
                        "max_surge_percent": 100,
                        "ray_actor_options": copy.deepcopy(REPLICA),
                        **(deployment or {}),
                    }
                ],
            }
        ]
    }


def events_config(*, replicas: int = 1) -> dict[str, Any]:
    """Return the application that takes events of all sources, in the form of Ray's ServeApplicationSchema."""
    if replicas < 1:
        raise InvalidValue("replicas", f"{replicas} is less than 1")
    return {
        "name": EVENTS,
        "route_prefix": PREFIX,
        "import_path": "headway.cluster.events:application",
        "deployments": [
            {
                "name": INGEST,
                "num_replicas": replicas,
                "max_surge_percent": 100,
                "ray_actor_options": copy.deepcopy(REPLICA),
            }
        ],
    }


def min_replicas(contract: Contract) -> int:
    """Return how many replicas the availability clause asks for."""
    return 2 if contract.availability.target >= _REDUNDANT_FROM else 1
