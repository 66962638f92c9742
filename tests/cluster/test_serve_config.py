"""One configuration for laptop and cluster, in the form that Ray Serve accepts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headway.cluster.serve_config import (
    DEPLOYMENT,
    events_config,
    max_replicas,
    min_replicas,
    replicas_at_first,
    serve_config,
)
from headway.core.errors import InvalidValue, NotFound
from headway.core.project import Project
from headway.governance.contract import Contract, load_contract, overlay

ROOT = Path(__file__).parents[2]


def raised(ceiling_rps: float, *, target: float = 0.9999) -> Contract:
    contract = load_contract(ROOT / "serve_apps" / "fraud" / "contract.yaml").contract
    availability = msgspec.structs.replace(contract.availability, target=target)
    return msgspec.structs.replace(overlay(contract, ceiling_rps=ceiling_rps), availability=availability)


@pytest.mark.parametrize("use_case", ["fraud", "churn"])
def test_ray_accepts_it_and_names_what_the_application_deploys(use_case: str) -> None:
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

    config = serve_config(use_case, project=Project(ROOT))
    parsed = ServeDeploySchema.model_validate(config)
    (application,) = parsed.applications
    assert (application.name, application.route_prefix) == (use_case, f"/{use_case}")
    assert application.import_path == f"serve_apps.{use_case}:app"
    assert application.deployments[0].max_surge_percent == 100
    # Ray ignores fields that it does not know: all of ours must be its own
    assert set(config["applications"][0]) <= set(ServeApplicationSchema.model_fields)
    assert application.deployments[0].ray_actor_options.label_selector == {"ray.io/market-type": "!spot"}
    assert application.model_dump(exclude_unset=True)["deployments"] == config["applications"][0]["deployments"]


def test_the_deployment_exists_in_the_application() -> None:
    from headway.serving import application

    assert application("fraud")._bound_deployment.name == DEPLOYMENT


def test_ray_builds_the_application_of_events_by_its_import_path() -> None:
    from ray._common.utils import import_attr
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
    from ray.serve.schema import ServeApplicationSchema

    config = events_config(replicas=2)
    parsed = ServeApplicationSchema.model_validate(config)
    assert set(config) <= set(ServeApplicationSchema.model_fields)
    assert parsed.route_prefix == "/v1/events"
    built = call_user_app_builder_with_args_if_necessary(import_attr(parsed.import_path), {})
    assert built._bound_deployment.name == parsed.deployments[0].name
    assert parsed.deployments[0].num_replicas == 2
    with pytest.raises(InvalidValue):
        events_config(replicas=0)


@pytest.mark.parametrize(("target", "least"), [(0.9, 0), (0.99, 1), (0.999, 2), (0.9999, 2)])
@pytest.mark.parametrize(("ceiling", "most"), [(100, 1), (2_000, 4), (60_000, 100)])
def test_availability_and_ceiling_bound_the_replicas(target: float, least: int, ceiling: float, most: int) -> None:
    changed = raised(ceiling, target=target)
    (deployment,) = serve_config("fraud", contract=changed)["applications"][0]["deployments"]
    most = max(least, most)
    assert (min_replicas(changed), max_replicas(changed)) == (least, most)
    assert replicas_at_first(deployment) == max(1, least)
    if least == most:
        assert deployment["num_replicas"] == least
    else:
        scaling = deployment["autoscaling_config"]
        assert (scaling["min_replicas"], scaling["max_replicas"]) == (least, most)
        assert "num_replicas" not in deployment


def test_a_small_machine_holds_no_more_than_its_cores_but_what_availability_asks_for() -> None:
    assert max_replicas(raised(60_000), at_most=8) == 8
    assert max_replicas(raised(60_000), at_most=1) == 2
    (deployment,) = serve_config("fraud", contract=raised(60_000), at_most=2)["applications"][0]["deployments"]
    assert deployment["num_replicas"] == 2
    assert max_replicas(raised(60_000), rows_per_s=10_000) == 10


def test_overrides_win_and_nonsense_is_refused() -> None:
    contract = load_contract(ROOT / "serve_apps" / "fraud" / "contract.yaml").contract
    config = serve_config("fraud", contract=contract, replicas=1, deployment={"max_ongoing_requests": 7})
    deployment = config["applications"][0]["deployments"][0]
    assert (deployment["num_replicas"], deployment["max_ongoing_requests"]) == (1, 7)
    with pytest.raises(InvalidValue, match="replicas"):
        serve_config("fraud", contract=contract, replicas=0)
    with pytest.raises(NotFound):
        serve_config("nothing", project=Project(ROOT))


@pytest.mark.ray
def test_a_replica_may_run_on_a_node_without_a_market(ray_session: str) -> None:
    """The same configuration has to work on a laptop, whose node carries no such label."""
    import ray

    from headway.cluster.serve_config import REPLICA

    probe = ray.remote(**REPLICA)(lambda: "ran")
    assert ray.get(probe.remote(), timeout=60) == "ran"
