"""One key's value told to be complete and current without a walk: the way of most reads of a single row.

A directory decides where everything lies, so it is understood once; the next value that begins with the same bytes
needs its times compared and nothing else. Whatever is not plainly PRESENT for all views goes the general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from headway.core.types import Columns
from headway.features.rows.codec import RowLayout
from headway.features.rows.scan import ID_BYTES, MAGIC, SEAL, TIME_BYTES
from headway.features.rows.value import Slot, directory

_DIRECTORIES = 64
_WHOLE = len(TIME_BYTES) - 1
_LATER, _ABSOLUTE = 1, 2


class _Stamp(NamedTuple):
    """Where a rank's times are, in bytes of the value."""

    begin: int
    middle: int
    end: int
    absolute: bool
    """Whether the event_time stands for itself."""
    late: int
    """0: known as long after it happens as the one before, `_LATER`: so much later still, `_ABSOLUTE`: the known_time
    stands for itself."""


class Directory(NamedTuple):
    """A directory, understood."""

    size: int
    """Bytes of the value; 0: not one for a glance."""
    stamps: tuple[_Stamp, ...]
    body: int
    """Where the bodies begin, if those of our views are side by side; 0: they are not."""


_OTHER = Directory(0, (), 0)


class Glance:
    """Tells whether one key has a value for every view, as of one time."""

    def __init__(self, layouts: Sequence[RowLayout], ttl: int, *, cutoff: bool) -> None:
        """`ttl` is the shortest of the views."""
        ordered = sorted(layouts, key=lambda layout: layout.tag)
        self._lengths = {layout.tag: layout.fixed for layout in ordered}
        self._ttl = ttl
        self._cutoff = cutoff
        self._directories: dict[bytes, Directory] = {}
        self._sizes: tuple[int, ...] = ()
        self._names = tuple(name for layout in ordered for group in layout.groups for name in group.names)
        kinds = {group.kind for layout in layouts for group in layout.groups}
        alike = len(kinds) == 1 and all(layout.nulls == layout.fixed for layout in layouts)
        self._type = np.dtype(kinds.pop()) if alike else None

    def look(self, value: bytes, at: int) -> Directory | None:
        """Return the directory where all views are PRESENT; None: look closer. `value` has the right checksum."""
        for size in self._sizes:
            found = self._directories.get(value[:size])
            if found is not None:
                break
        else:
            found = self._learned(value)
        if len(value) != found.size:
            return None
        event = gap = 0
        for begin, middle, end, absolute, late in found.stamps:
            number = int.from_bytes(value[begin:middle], "little", signed=True)
            event = number if absolute else event + number
            if not 0 <= at - event <= self._ttl:
                return None
            if late:
                number = int.from_bytes(value[middle:end], "little", signed=True)
                gap = gap + number if late == _LATER else number - event
            if gap and self._cutoff and event + gap > at:
                return None
        return found

    def columns(self, value: bytes, found: Directory) -> Columns | None:
        """Return the columns of a value at once where they are of one type without null bits; None: they are not."""
        if self._type is None or not found.body:
            return None
        block = np.frombuffer(value, self._type, len(self._names), found.body).copy()
        return dict(zip(self._names, block.reshape(-1, 1), strict=True))

    def _learned(self, value: bytes) -> Directory:
        try:
            slots, at = directory(value)
        except IndexError:
            return _OTHER
        if len(self._directories) >= _DIRECTORIES:
            self._directories.clear()
            self._sizes = ()
        found = self._directories[value[:at]] = self._understood(value, slots, at)
        self._sizes = tuple({*self._sizes, at})
        return found

    def _understood(self, value: bytes, slots: Sequence[Slot], at: int) -> Directory:
        tags = [slot.tag for slot in slots]
        own = [i for i, slot in enumerate(slots) if self._lengths.get(slot.tag) == slot.length]
        if (
            value[0] != MAGIC
            or len(own) < len(self._lengths)
            or slots[0].id == 0
            or any(slot.text for slot in slots)
            or any(a >= b for a, b in pairwise(tags))
        ):
            return _OTHER
        stamps: list[_Stamp] = []
        for slot in slots:
            if slot.id:
                middle = at + TIME_BYTES[slot.event]
                end = middle + TIME_BYTES[slot.known]
                late = 0 if slot.known == 0 else _ABSOLUTE if slot.known == _WHOLE else _LATER
                stamps.append(_Stamp(at, middle, end, slot.event == _WHOLE, late))
                at = end + ID_BYTES[slot.id]
        beside = own == list(range(own[0], own[0] + len(own)))
        return Directory(
            size=at + sum(slot.length for slot in slots) + SEAL,
            stamps=tuple(stamps),
            body=at + sum(slot.length for slot in slots[: own[0]]) if beside else 0,
        )
