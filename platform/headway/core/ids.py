"""UUIDv7 (RFC 9562 §5.7): time-ordered identifiers, so that logs and lake files cluster by time."""

from __future__ import annotations

import os

_LOW = (1 << 62) - 1
_DRAWN = 10
_POOL = 4_000
_MILLISECONDS = (1 << 48) - 1


def uuid7(now: int) -> str:
    """Return a UUIDv7 for `now` (UTC microseconds), random in its 74 low bits."""
    return uuid7_of(now, int.from_bytes(os.urandom(10), "big"))


def uuid7_of(now: int, free: int) -> str:
    """Return the UUIDv7 of `now` (UTC microseconds) whose 74 free bits are the low ones of `free`."""
    high = (now // 1_000 & _MILLISECONDS) << 16 | 0x7 << 12 | free >> 62 & 0xFFF
    text = f"{high << 64 | 0b10 << 62 | free & _LOW:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Ids:
    """UUIDv7s whose random bits are drawn from the system many at a time; for one thread."""

    def __init__(self) -> None:
        self._random = b""
        self._at = 0

    def make(self, now: int) -> str:
        """Return a UUIDv7 for `now` (UTC microseconds)."""
        at = self._at
        if at == len(self._random):
            self._random, at = os.urandom(_POOL), 0
        self._at = at + _DRAWN
        return uuid7_of(now, int.from_bytes(self._random[at : self._at], "big"))
