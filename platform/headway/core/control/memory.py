"""The control store of unit tests."""

from __future__ import annotations

from headway.core.control.port import Record
from headway.core.errors import Conflict


class MemoryControlStore:
    """Records in a dictionary."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

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
