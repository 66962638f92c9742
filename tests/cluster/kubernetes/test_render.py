"""What is rendered: schema-valid, the local Serve configuration, and no pod with more rights than it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway.cluster.kubernetes import render
from headway.cluster.kubernetes.node_groups import load_cluster, load_prices
from headway.cluster.kubernetes.validate import Schemas, validate
from headway.cluster.serve_config import events_config, replicas_at_first, serve_config
from headway.core.errors import DefinitionError, NotFound
from headway.core.project import Project
from headway.core.ray_session import grpc_options
from headway.core.settings import Settings
from tests.cluster.kubernetes.conftest import ROOT, Manifest, one


def templates(manifests: list[Manifest]) -> list[Manifest]:
    cluster = one(manifests, "RayService")["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


def test_every_manifest_is_valid(manifests: list[Manifest], crds: Schemas) -> None:
    assert len(manifests) == 8
    for manifest in manifests:
        validate(manifest, crds)


def test_core_kinds_are_valid_without_the_crds(manifests: list[Manifest]) -> None:
    core = [manifest for manifest in manifests if manifest["kind"] not in ("RayService", "PodMonitor")]
    assert len(core) == 6
    for manifest in core:
        validate(manifest, {})


def test_pod_templates_are_valid_as_pods(manifests: list[Manifest]) -> None:
    """The CRD knows a template's fields; the core schema knows what they may hold."""
    for index, template in enumerate(templates(manifests)):
        metadata = {**template["metadata"], "name": f"pod-{index}"}
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, {})


def test_the_serve_configuration_is_the_local_one(manifests: list[Manifest], use_case: str) -> None:
    rendered = yaml.safe_load(one(manifests, "RayService")["spec"]["serveConfigV2"])
    decisions, events = rendered["applications"]
    assert {"applications": [decisions]} == serve_config(use_case, project=Project(ROOT))
    assert events == events_config(replicas=replicas_at_first(decisions["deployments"][0]))


def test_nothing_in_the_output_depends_on_the_run(use_case: str, tmp_path: Path) -> None:
    first = render(use_case, Project(ROOT), Settings(), tmp_path / "a")
    again = render(use_case, Project(ROOT), Settings(), tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert all(b"&id" not in path.read_bytes() for path in first)
    listed = yaml.safe_load((tmp_path / "a" / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in first)


def test_no_container_is_root_or_can_write_its_image_or_gain_rights(manifests: list[Manifest]) -> None:
    options = one(manifests, "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]
    contexts = [options["securityContext"]]
    for template in templates(manifests):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        contexts += [container["securityContext"] for container in spec["containers"]]
    for context in contexts:
        assert context["runAsUser"] > 0
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_only_the_autoscaler_mounts_a_kubernetes_token(manifests: list[Manifest]) -> None:
    for template in templates(manifests):
        for container in template["spec"]["containers"]:
            assert all(mount["name"] != "kubernetes-token" for mount in container["volumeMounts"])
    options = one(manifests, "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]
    assert "kubernetes-token" in [mount["name"] for mount in options["volumeMounts"]]


def test_the_cluster_survives_its_head_and_keeps_replicas_off_it(manifests: list[Manifest]) -> None:
    cluster = one(manifests, "RayService")["spec"]["rayClusterConfig"]
    assert cluster["headGroupSpec"]["resources"] == {"cpu": "0"}
    assert "num-cpus" not in cluster["headGroupSpec"]["rayStartParams"]
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"].startswith("redis://")
    assert set(cluster["gcsFaultToleranceOptions"]["redisPassword"]) == {"valueFrom"}
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"


def test_replicas_get_the_nodes_that_availability_asks_for_and_spot_is_tainted(manifests: list[Manifest]) -> None:
    serving, training = one(manifests, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    config = yaml.safe_load(one(manifests, "RayService")["spec"]["serveConfigV2"])
    replicas = replicas_at_first(config["applications"][0]["deployments"][0])
    assert replicas == 2
    assert config["grpc_options"] == grpc_options(9000)
    events = config["applications"][1]
    assert (events["route_prefix"], events["deployments"][0]["num_replicas"]) == ("/v1/events", 2)
    assert serving["minReplicas"] >= replicas
    assert serving["labels"]["ray.io/market-type"] == "on-demand"
    assert training["labels"]["ray.io/market-type"] == "spot"
    assert training["template"]["spec"]["tolerations"][0]["value"] == "spot"
    assert "tolerations" not in serving["template"]["spec"]
    budget = one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget.items() <= serving["template"]["metadata"]["labels"].items()
    assert not budget.items() <= training["template"]["metadata"]["labels"].items()


def test_the_network_is_closed_but_for_what_is_listed(manifests: list[Manifest]) -> None:
    policies = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}
    deny, allow = sorted(policies.values(), key=lambda spec: "ingress" in spec)
    assert deny["policyTypes"] == allow["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny and "egress" not in deny
    open_ports = [port["port"] for rule in allow["ingress"] for port in rule.get("ports", [])]
    assert 8000 in open_ports and 9000 in open_ports
    assert 8404 not in open_ports and 6379 not in open_ports and 10001 not in open_ports
    assert all(rule.get("from") for rule in allow["ingress"])
    blocks = [peer["ipBlock"] for rule in allow["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert all("169.254.169.254/32" in block["except"] for block in blocks)
    for spec in (deny, allow):
        selected = spec["podSelector"]["matchLabels"].items()
        assert all(selected <= template["metadata"]["labels"].items() for template in templates(manifests))


def test_secrets_are_referred_to_and_never_written(manifests: list[Manifest], use_case: str) -> None:
    assert all(manifest["kind"] != "Secret" for manifest in manifests)
    for template in templates(manifests):
        variables = {entry["name"]: entry for entry in template["spec"]["containers"][0]["env"]}
        for name in ("HEADWAY_REDIS_FEATURES_URL", "HEADWAY_REDIS_CONTROL_URL", "HEADWAY_STREAM_URL"):
            assert variables[name]["valueFrom"]["secretKeyRef"]["name"] == f"headway-{use_case}-secrets"


def test_the_settings_are_ones_that_headway_reads(manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    data = one(manifests, "ConfigMap")["data"]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.http_host == "0.0.0.0"
    assert list(settings.oidc_issuers) == json.loads(data["HEADWAY_OIDC_ISSUERS"])
    assert set(data) <= {f"HEADWAY_{name.upper()}" for name in Settings.model_fields}


def test_an_unknown_use_case_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="churn, fraud"):
        render("nothing", Project(ROOT), Settings(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "registry.example.com/headway:latest"}, "image"),
        ({"image": "registry.example.com:5000/headway"}, "image"),
        ({"colour": "red"}, "colour"),
        ({"groups": []}, "groups"),
        ({"head_cpu": "two"}, "head_cpu"),
    ],
)
def test_a_wrong_cluster_definition_names_its_field(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = yaml.safe_load((ROOT / "cluster" / "node_groups.yaml").read_text())
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "node_groups.yaml").write_text(yaml.safe_dump({**good, **change}))
    with pytest.raises(DefinitionError, match=message):
        load_cluster(tmp_path)


def test_groups_must_make_sense_and_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"cluster/node_groups.yaml: no such file"):
        load_cluster(tmp_path)
    good = yaml.safe_load((ROOT / "cluster" / "node_groups.yaml").read_text())
    (tmp_path / "cluster").mkdir()
    for index, change in ((0, {"market": "spot"}), (1, {"min": 9})):
        groups = [dict(group) for group in good["groups"]]
        groups[index] |= change
        (tmp_path / "cluster" / "node_groups.yaml").write_text(yaml.safe_dump({**good, "groups": groups}))
        with pytest.raises(DefinitionError, match=rf"groups\[{index}\]"):
            load_cluster(tmp_path)


def test_every_group_has_a_price() -> None:
    prices = {price.instance: price for price in load_prices(ROOT).prices}
    for group in load_cluster(ROOT).groups:
        assert prices[group.instance].spot_per_hour < prices[group.instance].on_demand_per_hour
