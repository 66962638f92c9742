"""The control store of unit tests."""

from __future__ import annotations

from collections.abc import Sequence

from headway.core.control.port import Record
from headway.core.errors import Conflict


class MemoryControlStore:
    """Records in a dictionary."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._members: set[tuple[str, str]] = set()

    def get(self, key: str) -> Record | None:
        """Return the record, or None."""
        return self._records.get(key)

    def put(self, key: str, value: bytes, *, expected: int) -> int:
        """Write if the version is `expected`."""
        record = self._records.get(key)
        current = record.version if record else 0
        if current != expected:
            raise Conflict(f"{key} is at version {current}, not {expected}", hint="read it again and repeat")
        self._records[key] = Record(value=value, version=current + 1)
        return current + 1

    def add_once(self, key: str, members: Sequence[str], *, expire_s: int) -> list[bool]:  # noqa: ARG002  # tests are short
        """Remember the members; False for each that is known."""
        new = []
        for member in members:
            new.append((key, member) not in self._members)
            self._members.add((key, member))
        return new
