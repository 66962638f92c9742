"""Types every floor shares: who acts, and columns of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headway.core.errors import Forbidden

Columns = dict[str, npt.NDArray[np.generic]]
"""A batch: column name → array of equal length n. Keys int64 or object (str), numbers int64/float32/float64."""

Matrix = npt.NDArray[np.float32]
"""Model input, float32 [n rows, k features], in the order of the feature service."""

Int64 = npt.NDArray[np.int64]
"""Keys, counts and UTC microseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A verified identity; every reader and every governed act takes one."""

    sub: str
    """Subject: a person, a CI pipeline or a workload."""
    kind: str
    """human | ci | workload."""
    scopes: frozenset[str]
    """`<verb>:<resource>` entries, INTERFACES §4."""
    purpose: str
    """Why it acts; data is released only for purposes its source allows."""
    expires: int
    """UTC microseconds after which the identity is void."""

    def require(self, verb: str, resource: str) -> None:
        """Raise Forbidden unless a scope grants `verb:resource`."""
        if f"{verb}:{resource}" not in self.scopes:
            raise Forbidden(
                f"{self.sub} lacks the scope {verb}:{resource}", hint="ask for a token with that scope: headway token"
            )
