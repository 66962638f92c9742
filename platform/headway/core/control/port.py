"""What a control store must do: compare-and-set on a version, so that two writers can never both win."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A value and the version that the next writer must name."""

    value: bytes
    version: int


class ControlStore(Protocol):
    """Versioned records by key."""

    def get(self, key: str) -> Record | None:
        """Return the record, or None where the key was never written."""
        ...

    def put(self, key: str, value: bytes, *, expected: int) -> int:
        """Write if the current version is `expected` (0: the key must not exist); return the new version.

        Raises Conflict if another writer was first.
        """
        ...
