"""What a feed hands over: a stretch of what it reads, and the position from which it goes on afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

CHUNK_ROWS = 5_000
CHUNK_BYTES = 8 << 20
"""A chunk ends at the row that reaches either."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row that cannot be made an event."""

    number: int
    value: bytes
    """As it was read, as far as it could be."""
    reason: str


@dataclass(kw_only=True)
class Chunk:
    """Rows in order, and where the feed goes on once the stream has them."""

    position: bytes
    """For the feed alone; never empty."""
    label: str
    """With a row's number, where it stands: `a.csv row`."""
    values: list[bytes] = field(default_factory=list)
    """JSON objects that may be events."""
    numbers: list[int] = field(default_factory=list)
    """Of the values."""
    refused: list[Refused] = field(default_factory=list)
    skipped: int = 0
    """Rows that are no events by declaration."""
    size: int = 0

    @property
    def read(self) -> int:
        """How many rows it holds."""
        return len(self.values) + len(self.refused) + self.skipped

    @property
    def full(self) -> bool:
        """Whether it has to end here."""
        return self.read >= CHUNK_ROWS or self.size >= CHUNK_BYTES

    def add(self, number: int, value: bytes) -> None:
        """Append a row."""
        self.values.append(value)
        self.numbers.append(number)
        self.size += len(value)

    def refuse(self, number: int, value: bytes, reason: str) -> None:
        """Append a row that is none."""
        self.refused.append(Refused(number=number, value=value, reason=reason))
        self.size += len(value)


class Feed(Protocol):
    """Something that can be read from a position on, again and again."""

    @property
    def name(self) -> str:
        """Under which its position is remembered, the same for the same things to read; empty: it has none."""
        ...

    @property
    def ignored(self) -> list[str]:
        """Columns that are there and that the source does not have, as far as they are known."""
        ...

    def chunks(self, position: bytes | None) -> Iterator[Chunk]:
        """Read from a position on, None: from the beginning, to what is the end now.

        A chunk counts as safe when the next one is asked for. Raises InvalidValue where nothing can be read, naming
        file or query and column.
        """
        ...
