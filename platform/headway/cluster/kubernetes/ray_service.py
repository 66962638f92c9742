"""The RayService: the local Serve configuration on a cluster that survives its head and its machines."""

from __future__ import annotations

from typing import Any

import yaml

from headway.cluster.kubernetes.names import Names, labels
from headway.cluster.kubernetes.node_groups import Cluster, NodeGroup
from headway.cluster.kubernetes.pods import autoscaler, head_template, worker_template

Manifest = dict[str, Any]


def ray_service(names: Names, cluster: Cluster, config: Manifest, *, min_workers: int) -> Manifest:
    """Return the manifest; `config` goes in as it is, and the first node group holds at least `min_workers`."""
    first, *others = cluster.groups
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": names.service, "namespace": names.namespace, "labels": labels(names)},
        "spec": {
            "serveConfigV2": yaml.safe_dump(config, sort_keys=False),
            "upgradeStrategy": {"type": "NewCluster"},
            "excludeHeadPodFromServeSvc": True,
            "rayClusterDeletionDelaySeconds": 120,
            "rayClusterConfig": {
                "rayVersion": cluster.ray_version,
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": autoscaler(),
                "gcsFaultToleranceOptions": {
                    "redisAddress": cluster.services.gcs_redis,
                    "redisPassword": {
                        "valueFrom": {"secretKeyRef": {"name": names.secrets, "key": "gcs-redis-password"}}
                    },
                    "externalStorageNamespace": names.service,
                },
                "headGroupSpec": {
                    "serviceType": "ClusterIP",
                    # no replica and no task on the head: it only coordinates
                    "resources": {"cpu": "0"},
                    "rayStartParams": {"dashboard-host": "0.0.0.0"},  # noqa: S104  # behind the network policy
                    "template": head_template(names, cluster),
                },
                "workerGroupSpecs": [
                    _group(names, cluster, first, least=min_workers),
                    *(_group(names, cluster, group, least=0) for group in others),
                ],
            },
        },
    }


def _group(names: Names, cluster: Cluster, group: NodeGroup, *, least: int) -> Manifest:
    minimum = max(group.min, least)
    return {
        "groupName": group.name,
        "minReplicas": minimum,
        "replicas": minimum,
        "maxReplicas": max(group.max, minimum),
        "labels": {"ray.io/market-type": group.market, "headway.dev/group": group.name},
        "rayStartParams": {},
        "template": worker_template(names, cluster, group),
    }
