"""UUIDv7 (RFC 9562 §5.7): time-ordered identifiers, so that logs and lake files cluster by time."""

from __future__ import annotations

import os
import uuid


def uuid7(now: int) -> str:
    """Return a UUIDv7 for `now` (UTC microseconds), random in its 74 low bits."""
    milliseconds = now // 1_000
    tail = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76
    value |= ((tail >> 62) & 0xFFF) << 64
    value |= 0b10 << 62
    value |= tail & ((1 << 62) - 1)
    return str(uuid.UUID(int=value))
