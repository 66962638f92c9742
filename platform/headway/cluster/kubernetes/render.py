"""Writes the manifests of a use case, one file per kind, and a kustomization that lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from headway.cluster.kubernetes.names import Names, labels
from headway.cluster.kubernetes.network import network_policies
from headway.cluster.kubernetes.node_groups import Cluster, load_cluster
from headway.cluster.kubernetes.pods import GRPC_PORT, HOME, PROJECT
from headway.cluster.kubernetes.ray_service import ray_service
from headway.cluster.serve_config import events_config, min_replicas, serve_config
from headway.core.project import Project
from headway.core.ray_session import grpc_options
from headway.core.settings import Settings
from headway.governance.contract import load_contract

Manifest = dict[str, Any]


def render(use_case: str, project: Project, settings: Settings, out: Path) -> list[Path]:
    """Write the use case's manifests under `out` and return their paths.

    Raises NotFound for an unknown use case and DefinitionError for a wrong contract or cluster definition; nothing is
    written then.
    """
    contract = load_contract(project.app_folder(use_case) / "contract.yaml", name=use_case).contract
    cluster = load_cluster(project.root)
    names = Names(use_case=use_case, namespace=cluster.namespace)
    replicas = max(1, min_replicas(contract))
    config = serve_config(use_case, contract=contract)
    config["applications"].append(events_config(replicas=replicas))
    config["grpc_options"] = grpc_options(GRPC_PORT)
    files: dict[str, list[Manifest]] = {
        "service-accounts.yaml": [_account(names, name) for name in (names.head, names.worker)],
        "settings.yaml": [_settings(names, cluster, settings)],
        "network-policies.yaml": network_policies(names),
        "disruption-budget.yaml": [_disruption_budget(names, cluster.groups[0].name)],
        "pod-monitor.yaml": [_pod_monitor(names)],
        "ray-service.yaml": [ray_service(names, cluster, config, min_workers=replicas)],
    }
    files["kustomization.yaml"] = [
        {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": sorted(files)}
    ]
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, manifests in files.items():
        path = out / name
        path.write_text(yaml.dump_all(manifests, Dumper=_Plain, sort_keys=False, allow_unicode=True))
        paths.append(path)
    return paths


class _Plain(yaml.SafeDumper):
    """YAML without anchors: a shared fragment is written out where it is used."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the base class's signature
        """No fragment is an alias."""
        return True


def _meta(names: Names, name: str) -> Manifest:
    return {"name": name, "namespace": names.namespace, "labels": labels(names)}


def _account(names: Names, name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(names, name),
        "automountServiceAccountToken": False,
    }


def _settings(names: Names, cluster: Cluster, settings: Settings) -> Manifest:
    services = cluster.services
    data = {
        "HEADWAY_HOME": HOME,
        "HEADWAY_PROJECT": PROJECT,
        "HEADWAY_TRUST_ROOT": f"{PROJECT}/trust/trust.json",
        "HEADWAY_HTTP_HOST": "0.0.0.0",  # noqa: S104  # behind the network policy
        "HEADWAY_MLFLOW_URI": settings.mlflow_uri or services.mlflow,
        "HEADWAY_CATALOG_URI": settings.catalog_uri or services.catalog,
        "HEADWAY_WAREHOUSE": settings.warehouse or services.warehouse,
        # pydantic-settings reads tuples as JSON
        "HEADWAY_OIDC_ISSUERS": _json_list(settings.oidc_issuers or services.issuers),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(names, names.settings), "data": data}


def _json_list(values: tuple[str, ...]) -> str:
    import json

    return json.dumps(list(values))


def _disruption_budget(names: Names, group: str) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(names, names.service),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels(names, group)},
        },
    }


def _pod_monitor(names: Names) -> Manifest:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _meta(names, names.service),
        "spec": {
            "selector": {"matchLabels": labels(names)},
            "podMetricsEndpoints": [{"port": "metrics", "interval": "15s"}],
        },
    }
