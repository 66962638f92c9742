"""A workload's token that renews itself: the demo's clients and the platform's own actors outlive fifteen minutes."""

from __future__ import annotations

from collections.abc import Sequence

from headway.cluster.local.tokens import request_token
from headway.core.clock import Clock, SystemClock
from headway.core.settings import Settings
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
