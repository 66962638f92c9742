"""The development identity provider: short-lived tokens for whoever can read the home's secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headway.cluster.local.process import python_command
from headway.cluster.local.service import Context, answers_http, private_secret

SECRET_FILE = "client.secret"  # noqa: S105 - the name of a file


@dataclass(frozen=True, kw_only=True)
class IssuerService:
    """An OpenID provider's discovery, keys and token endpoints on loopback."""

    name: str = "issuer"
    title: str = "Identity provider"
    start_timeout_s: float = 120.0
    stop_grace_s: float = 5.0

    def ports(self) -> Sequence[str]:
        """One port."""
        return ("issuer",)

    def prepare(self, context: Context) -> None:
        """Make the secret that guards the token endpoint."""
        private_secret(context.home / "issuer" / SECRET_FILE)

    def command(self, context: Context) -> Sequence[str]:
        """Run our server."""
        return python_command("headway.cluster.local.servers.issuer", str(context.home), str(context.port("issuer")))

    def environment(self, context: Context) -> Mapping[str, str]:  # noqa: ARG002 - the port's signature
        """Nothing to add."""
        return {}

    def healthy(self, context: Context) -> bool:
        """The keys are served."""
        return answers_http(context.port("issuer"), "/jwks.json")
