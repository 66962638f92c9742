"""Composition: the local platform, Kubernetes manifests, and the one place that wires the rooms together."""
