"""What a feature value that was read rests on: the same words for windows and rows, online and offline."""

from __future__ import annotations

from enum import IntEnum

from headway.core.times import DAY

SLACK = 3 * DAY
"""Online state is kept this much longer than a read of now needs it, for reads that come late."""

KEPT = DAY
"""A key stays this much longer in the online store than that: after its last write, or its newest event if later."""


class Status(IntEnum):
    """What a row's view columns rest on."""

    PRESENT = 0
    MISSING = 1
    """No event or row of this key was known."""
    EXPIRED = 2
    """Events were known, all older than every window; or the newest row is older than its ttl."""
    TRUNCATED = 5
    """A window reaches back into events that were forgotten; or the row as of t was replaced by a newer one."""
