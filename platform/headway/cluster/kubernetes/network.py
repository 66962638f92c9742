"""Network policies: nothing reaches a pod and no pod reaches anything but what is listed here.

Ray's own ports carry code, so that only the use case's pods and the operator may connect to them; HAProxy's statistics
port is open to nobody.
"""

from __future__ import annotations

from typing import Any

from headway.cluster.kubernetes.names import Names, labels
from headway.cluster.kubernetes.pods import GRPC_PORT

Manifest = dict[str, Any]
_METADATA_SERVICE = "169.254.169.254/32"


def network_policies(names: Names) -> list[Manifest]:
    """Return the policies of a use case: deny all, then the four ways in and the four ways out."""
    own = {"podSelector": {"matchLabels": labels(names)}}
    ingress = [
        {"from": [own]},
        {"from": [_namespace("headway.dev/ingress")], "ports": _tcp(8000, GRPC_PORT)},
        {"from": [_namespace("headway.dev/operator")], "ports": _tcp(8265, 8000)},
        {"from": [_namespace("headway.dev/metrics")], "ports": _tcp(8080)},
    ]
    egress = [
        {"to": [own]},
        {
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
            "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
        },
        {"to": [_namespace("headway.dev/services")]},
        # object store, catalog, issuer, the API server; never the machines' credentials
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [_METADATA_SERVICE]}}], "ports": _tcp(443, 6443)},
    ]
    return [
        _policy(names, f"{names.service}-deny", {"policyTypes": ["Ingress", "Egress"]}),
        _policy(names, names.service, {"policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}),
    ]


def _policy(names: Names, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": names.namespace, "labels": labels(names)},
        "spec": {"podSelector": {"matchLabels": labels(names)}, **spec},
    }


def _namespace(label: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {label: "true"}}}


def _tcp(*ports: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port} for port in ports]
