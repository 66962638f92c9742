"""Pins: names that hold snapshots of the lake, so that what was trained on them can be looked at and trained again.

A pin is a tag of the Iceberg table, so every tool that expires snapshots respects it, and none has to ask us.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from headway.core.clock import Clock
from headway.core.errors import NotFound
from headway.core.times import DAY

RUN_AT_MOST = 14 * DAY
"""A training that is older was killed, and holds nothing any more."""
_RUN = "run:"
_ATTEMPTS = 3


class Pins(Protocol):
    """A committer, in this process or in its actor."""

    def hold(self, pin: str, snapshots: Mapping[str, int]) -> None:
        """Pin snapshots (table → id); NotFound where one is gone already."""
        ...

    def release(self, pin: str, tables: Collection[str]) -> None:
        """Let go of what a name pins."""
        ...


@dataclass
class TrainingPins:
    """What a training holds while it runs, and what its version holds for good; a context that lets go of the first."""

    pins: Pins
    clock: Clock
    _held: dict[str, set[str]] = field(default_factory=dict)

    def __enter__(self) -> TrainingPins:
        """Hold nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go."""
        for pin, tables in self._held.items():
            self.pins.release(pin, tables)

    def hold_newest(self, run: str, newest: Callable[[], dict[str, int]]) -> dict[str, int]:
        """Pin what `newest` says and return it; it is asked again where a snapshot expired in between."""
        pin = f"{_RUN}{self.clock.now()}:{run}"
        for left in reversed(range(_ATTEMPTS)):
            snapshots = newest()
            self._held.setdefault(pin, set()).update(snapshots)
            try:
                self.pins.hold(pin, snapshots)
            except NotFound:
                if not left:
                    raise
                continue
            break
        return snapshots

    def keep(self, use_case: str, version: str, snapshots: Mapping[str, int]) -> None:
        """Pin what a registered version was trained on."""
        self.pins.hold(f"version:{use_case}/{version}", snapshots)


def abandoned(pins: Iterable[str], now: int) -> list[str]:
    """Return the pins of trainings that began too long ago to be running."""
    begun = {pin: pin.removeprefix(_RUN).partition(":")[0] for pin in pins if pin.startswith(_RUN)}
    return [pin for pin, at in begun.items() if at.isdigit() and int(at) < now - RUN_AT_MOST]
