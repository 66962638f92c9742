"""Pod templates of head and workers: non-root, read-only, without capabilities, and without a cluster credential."""

from __future__ import annotations

from typing import Any

from headway.cluster.kubernetes.names import Names, labels
from headway.cluster.kubernetes.node_groups import Cluster, NodeGroup
from headway.core.ray_session import GRPC_MESSAGE_BYTES, HOOK, PROXY_CHECK_S

Manifest = dict[str, Any]
USER = 1000
"""The image's user."""
HOME = "/var/lib/headway"
PROJECT = "/opt/headway"
GRPC_PORT = 9000
HAPROXY = "/opt/venv/bin/headway-haproxy"
"""What Serve starts as HAProxy; the image's build writes it (`headway.core.haproxy.write_script`)."""
_TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  # a folder's name, not a secret

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def ray_environment() -> dict[str, str]:
    """Return what Ray and Serve read when a node starts, the same as on a laptop but for addresses and ports."""
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(GRPC_MESSAGE_BYTES),
        "RAY_SERVE_HAPROXY_LOG_TARGET": "/dev/null",
        "RAY_SERVE_HAPROXY_BINARY_PATH": HAPROXY,
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": PROXY_CHECK_S,
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": HOOK,
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "PYTHONPATH": PROJECT,
        "PYTHONUNBUFFERED": "1",
        "HOME": HOME,
    }


def head_template(names: Names, cluster: Cluster) -> Manifest:
    """Return the head's pod template; only its autoscaler sees a Kubernetes token."""
    resources = {"cpu": cluster.head_cpu, "memory": cluster.head_memory}
    template = _template(names, cluster, component="head", account=names.head, resources=resources)
    template["spec"]["volumes"].append(
        {
            "name": "kubernetes-token",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                        }
                    },
                ],
            },
        }
    )
    template["spec"]["containers"][0]["ports"] = [
        {"name": "gcs", "containerPort": 6379},
        {"name": "dashboard", "containerPort": 8265},
        {"name": "client", "containerPort": 10001},
        {"name": "serve", "containerPort": 8000},
        {"name": "grpc", "containerPort": GRPC_PORT},
        {"name": "metrics", "containerPort": 8080},
    ]
    return template


def autoscaler() -> Manifest:
    """Return the options of the autoscaler beside the head."""
    return {
        "version": "v2",
        "idleTimeoutSeconds": 300,
        "upscalingMode": "Default",
        "securityContext": CONTAINER_SECURITY,
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}},
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # inside the pod
            {"name": "kubernetes-token", "mountPath": _TOKEN_FOLDER, "readOnly": True},
        ],
    }


def worker_template(names: Names, cluster: Cluster, group: NodeGroup) -> Manifest:
    """Return a group's pod template, bound to machines of its market."""
    resources = {"cpu": group.cpu, "memory": group.memory}
    template = _template(names, cluster, component=group.name, account=names.worker, resources=resources)
    spec = template["spec"]
    spec["nodeSelector"] = {"headway.dev/market": group.market}
    spec["terminationGracePeriodSeconds"] = 120
    spec["containers"][0]["ports"] = [
        {"name": "serve", "containerPort": 8000},
        {"name": "grpc", "containerPort": GRPC_PORT},
        {"name": "metrics", "containerPort": 8080},
    ]
    if group.market == "spot":
        spec["tolerations"] = [
            {"key": "headway.dev/market", "operator": "Equal", "value": "spot", "effect": "NoSchedule"}
        ]
    else:
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels(names, group.name)},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ]
    return template


def _template(names: Names, cluster: Cluster, *, component: str, account: str, resources: Manifest) -> Manifest:
    return {
        "metadata": {"labels": labels(names, component)},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "ray",
                    "image": cluster.image,
                    "imagePullPolicy": "IfNotPresent",
                    "env": [
                        *({"name": key, "value": value} for key, value in ray_environment().items()),
                        *(_secret(names, variable, key) for variable, key in SECRETS.items()),
                    ],
                    "envFrom": [{"configMapRef": {"name": names.settings}}],
                    "resources": {"requests": resources, "limits": resources},
                    "securityContext": CONTAINER_SECURITY,
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # inside the pod
                        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  # inside the pod
                        {"name": "home", "mountPath": HOME},
                        {"name": "trust", "mountPath": f"{PROJECT}/trust", "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
                {"name": "home", "emptyDir": {"sizeLimit": "10Gi"}},
                {"name": "trust", "configMap": {"name": names.trust}},
            ],
        },
    }


SECRETS = {
    "HEADWAY_REDIS_FEATURES_URL": "redis-features-url",
    "HEADWAY_REDIS_CONTROL_URL": "redis-control-url",
    "HEADWAY_STREAM_URL": "stream-url",
}
"""Environment variable → key of the secret: these addresses carry passwords."""


def _secret(names: Names, variable: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": names.secrets, "key": key}}}
