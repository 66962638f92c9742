"""Names and labels that the manifests of one use case share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Derived from the use case; underscores become dashes, as Kubernetes asks."""

    use_case: str
    namespace: str

    @property
    def service(self) -> str:
        """The RayService."""
        return f"headway-{self.use_case.replace('_', '-')}"

    @property
    def head(self) -> str:
        """Service account of the head: the autoscaler's."""
        return f"{self.service}-head"

    @property
    def worker(self) -> str:
        """Service account of the workers: no rights."""
        return f"{self.service}-worker"

    @property
    def settings(self) -> str:
        """ConfigMap of `HEADWAY_` variables."""
        return f"{self.service}-settings"

    @property
    def secrets(self) -> str:
        """Secret of the installation: redis-features-url, redis-control-url, stream-url, gcs-redis-password."""
        return f"{self.service}-secrets"

    @property
    def trust(self) -> str:
        """ConfigMap that the installation provides: trust.json, the public keys that may sign."""
        return f"{self.service}-trust"


def labels(names: Names, component: str | None = None) -> dict[str, str]:
    """Return the labels of a use case's pods, or of one component of it."""
    common = {"app.kubernetes.io/part-of": "headway", "headway.dev/use-case": names.service}
    return common if component is None else {**common, "headway.dev/component": component}
