"""What a write to the online store did, for window views and row views alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class WriteReport:
    """What a write did."""

    keys: int = 0
    """Keys touched."""
    events: int = 0
    """Distinct events given; of a row view, rows."""
    pruned: int = 0
    """Events dropped because no window reaches them any more; rows that a newer one of their key makes useless."""
    overflowed: int = 0
    """Events dropped because their key holds more than `max_events`."""
    retries: int = 0
    """Keys written again because another writer was first."""
    rebuilt: int = 0
    """Keys made anew from the lake, because events came after their tile was closed."""

    def add(self, part: WriteReport) -> None:
        """Count what a part of the write did."""
        for name, number in vars(part).items():
            setattr(self, name, getattr(self, name) + number)
