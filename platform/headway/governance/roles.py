"""Governance roles of the registry: what each may do, and the kind and scope of identity that has it."""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.errors import Forbidden
from headway.core.types import Principal

PROGRAMS = ("ci", "workload")
EVERYBODY = ("human", "ci", "workload")


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """A named right."""

    name: str
    kinds: tuple[str, ...]
    """Kinds of identity that can have it."""
    scope: str
    may: str
    """In words, for messages and documentation."""

    def held_by(self, principal: Principal) -> bool:
        """Whether the identity has the role."""
        return principal.kind in self.kinds and self.scope in principal.scopes

    def require(self, principal: Principal) -> None:
        """Raise Forbidden, saying what is missing, unless the identity has the role."""
        if self.scope not in principal.scopes:
            raise Forbidden(
                f"{principal.sub} lacks the scope {self.scope}",
                hint=f"role {self.name}: {self.may}; ask for a token with that scope: headway token",
            )
        if principal.kind not in self.kinds:
            raise Forbidden(
                f"{principal.sub} is {principal.kind}; only {' and '.join(self.kinds)} identities can {self.may}",
                hint=f"role {self.name} of the registry",
            )


READER = Role(name="reader", kinds=EVERYBODY, scope="registry:read", may="read versions, runs and artefacts")
CI = Role(name="ci", kinds=PROGRAMS, scope="registry:write", may="write runs, versions, artefacts and aliases")
REVIEWER = Role(
    name="reviewer", kinds=("human",), scope="registry:review", may="refuse a proposal for production with a reason"
)
APPROVER = Role(
    name="approver",
    kinds=("human",),
    scope="registry:approve",
    may="propose a version for production, approve another's proposal, and move a version back to staging",
)
ROLES = (CI, READER, REVIEWER, APPROVER)
