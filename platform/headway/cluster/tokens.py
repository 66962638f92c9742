"""Tokens that renew themselves: the demo's clients and the platform's own actors outlive fifteen minutes."""

from __future__ import annotations

from collections.abc import Sequence

from headway.cluster.local.tokens import request_token
from headway.core.clock import Clock, SystemClock
from headway.core.settings import Settings
from headway.core.times import SECOND
from headway.core.types import Principal
from headway.governance.claims import MAX_LIFETIME_S

_RENEW_S = 60


class TokenSource:
    """Returns the same token until a minute before it expires."""

    def __init__(
        self, settings: Settings, *, sub: str, scopes: Sequence[str], purpose: str, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._sub = sub
        self._scopes = tuple(scopes)
        self._purpose = purpose
        self._clock = clock or SystemClock()
        self._token = ""
        self._renew_at = float("-inf")

    def __call__(self) -> str:
        """Return a token that is good for at least a minute."""
        if self._clock.monotonic() >= self._renew_at:
            self._token = request_token(
                self._settings, sub=self._sub, kind="workload", scopes=self._scopes, purpose=self._purpose
            )
            self._renew_at = self._clock.monotonic() + MAX_LIFETIME_S - _RENEW_S
        return self._token


class RegistryTokens:
    """Returns the token by which an identity calls the registry's server: its own name, and only the registry's rights.

    Issued anew for who is verified already, so that the server's audit log names the one who acts and its gate decides
    by that one's kind; the caller's own token, with all its scopes, is not handed on.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}

    def __call__(self, principal: Principal, verb: str) -> str:
        """Return a token that is good for at least a minute."""
        key = (principal.sub, principal.kind, verb)
        token, renew_at = self._known.get(key, ("", 0))
        if self._clock.now() >= renew_at:
            scopes = ["registry:read"] if verb == "read" else ["registry:read", "registry:write"]
            token = request_token(
                self._settings, sub=principal.sub, kind=principal.kind, scopes=scopes, purpose=principal.purpose
            )
            self._known[key] = (token, self._clock.now() + (MAX_LIFETIME_S - _RENEW_S) * SECOND)
        return token
