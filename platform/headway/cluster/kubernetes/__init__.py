"""Manifests for KubeRay: what `headway render kubernetes` writes."""

from headway.cluster.kubernetes.render import render

__all__ = ["render"]
