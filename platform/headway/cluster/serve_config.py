"""The Serve configuration of a use case: one function, so that what runs on a laptop is what KubeRay applies.

It names no model version (the routing record does) and no address (each installation's proxy does), so that applying it
again changes nothing, here or there.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from headway.core.errors import InvalidValue
from headway.core.project import Project
from headway.governance.contract import Contract, load_contract
from headway.serving.autoscaling import TARGET_BUSY
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
_MAY_SLEEP_UP_TO = 0.9
"""Availability up to which a use case may have no replica while nobody asks: a batch tier, whose callers wait."""
ROWS_PER_S = 1_000.0
"""What a replica is trusted to serve: a quarter of what one core was measured to (`docs/benchmarks.md`)."""
_POLICY = "headway.serving.autoscaling:DemandPolicy"


def serve_config(
    use_case: str,
    *,
    contract: Contract | None = None,
    project: Project | None = None,
    replicas: int | None = None,
    deployment: dict[str, Any] | None = None,
    rows_per_s: float = ROWS_PER_S,
    at_most: int | None = None,
) -> dict[str, Any]:
    """Return the configuration of one application, in the form of Ray's ServeDeploySchema.

    Args:
        use_case: Name, route and import path.
        contract: The use case's contract; loaded from the project if not given.
        project: Where to load it from; the working directory if not given.
        replicas: A fixed number instead of the contract's bounds (benchmarks run one).
        deployment: Further deployment options, which win.
        rows_per_s: Measured capacity of one replica.
        at_most: Replicas that the nodes can hold.
    """
    if contract is None:
        from pathlib import Path

        project = project or Project(Path.cwd())
        contract = load_contract(project.app_folder(use_case) / "contract.yaml", name=use_case).contract
    if replicas is not None and replicas < 1:
        raise InvalidValue("replicas", f"{replicas} is less than 1")
    most = max_replicas(contract, rows_per_s=rows_per_s, at_most=at_most)
    number = _number(contract, most, rows_per_s) if replicas is None else {"num_replicas": replicas}
    return {
        "applications": [
            {
                "name": use_case,
                "route_prefix": f"/{use_case}",
                "import_path": f"serve_apps.{use_case}:app",
                "deployments": [
                    {
                        "name": DEPLOYMENT,
                        **number,
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
    target = contract.availability.target
    return 2 if target >= _REDUNDANT_FROM else 1 if target > _MAY_SLEEP_UP_TO else 0


def replicas_at_first(deployment: dict[str, Any]) -> int:
    """Return how many replicas a deployment starts with."""
    scaling = deployment.get("autoscaling_config")
    return int(deployment["num_replicas"] if scaling is None else scaling["initial_replicas"])


def max_replicas(contract: Contract, *, rows_per_s: float = ROWS_PER_S, at_most: int | None = None) -> int:
    """Return how many replicas the ceiling asks for at the share of their time that they are meant to work.

    The nodes' bound holds, but never below what availability asks for.
    """
    wanted = math.ceil(contract.throughput.ceiling_rps / (rows_per_s * TARGET_BUSY))
    return max(1, min_replicas(contract), wanted if at_most is None else min(wanted, at_most))


def _number(contract: Contract, most: int, rows_per_s: float) -> dict[str, Any]:
    """Return the options that say how many replicas run: a number, or bounds and the policy between them."""
    least = min_replicas(contract)
    if least == most:
        return {"num_replicas": least}
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "initial_replicas": max(1, least),
            "max_replicas": most,
            # ours decides when; what it decides is done at once
            "upscale_delay_s": 0.0,
            "downscale_delay_s": 0.0,
            "metrics_interval_s": 1.0,
            "look_back_period_s": 3.0,
            "policy": {
                "policy_function": _POLICY,
                "policy_kwargs": {"queue_rows": max(1.0, rows_per_s * contract.latency.p99_ms / 1e3)},
            },
        }
    }
