"""The claims of a token (INTERFACES §4) and the words they are made of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from headway.core.errors import InvalidValue

AUDIENCE = "headway"
MAX_LIFETIME_S = 900
"""A stolen token is void after 15 minutes at most; libraries would accept years."""
KINDS: tuple[Literal["human", "ci", "workload"], ...] = ("human", "ci", "workload")
_SCOPE = re.compile(r"[a-z][a-z0-9_-]*(?::[A-Za-z0-9_.-]+){1,3}")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=2**40)]


class TokenClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified token says; claims of other systems are ignored."""

    iss: str
    """Issuer."""
    sub: Text
    """Who acts."""
    aud: str | list[str]
    """Must name `headway`."""
    iat: Seconds
    """Issued at, seconds since the epoch."""
    exp: Seconds
    """Void from this second on; at most 15 minutes after `iat`."""
    nbf: Seconds | None = None
    """Not before."""
    jti: Text
    """Identifies the token."""
    kind: Literal["human", "ci", "workload"]
    scope: Annotated[str, msgspec.Meta(max_length=4096)]
    """Space-separated `<verb>:<resource>`."""
    purpose: Text
    """Why it acts."""


def check_scope(scope: str) -> str:
    """Return a well-formed scope; InvalidValue otherwise."""
    if _SCOPE.fullmatch(scope) is None:
        raise InvalidValue("scope", f"{scope!r} is not a scope", hint="write <verb>:<resource>: decide:fraud")
    return scope
