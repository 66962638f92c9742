"""Times are UTC microseconds as int, durations too; this module is where text becomes either.

The three times of a row (event_time, known_time, ingested_at) are defined in INTERFACES §1.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from headway.core.errors import InvalidValue

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

EVENT_TIME = "event_time"
KNOWN_TIME = "known_time"
INGESTED_AT = "ingested_at"

_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 to 9999: what RFC 3339 can say."""
_UNITS = {"us": 1, "ms": 1_000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")


def parse_duration(text: str, *, field: str = "duration") -> int:
    """Return microseconds for `5s`, `7d`, `1.5h`; raise InvalidValue naming `field` otherwise."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidValue(field, f"{text!r} is not a duration", hint="write a number and us, ms, s, m, h, d or w: 5s")
    return round(float(match[1]) * _UNITS[match[2]])


def format_duration(microseconds: int) -> str:
    """Return the shortest exact text for a duration: 604800000000 → `7d`."""
    for unit in ("d", "h", "m", "s", "ms"):
        if microseconds and microseconds % _UNITS[unit] == 0:
            return f"{microseconds // _UNITS[unit]}{unit}"
    return f"{microseconds}us"


def parse_time(text: str, *, field: str = "time") -> int:
    """Return microseconds for an RFC 3339 time or date; a naive time is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise InvalidValue(field, f"{text!r} is not a time", hint="write RFC 3339: 2018-08-08T00:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


def require_time(microseconds: int, *, field: str) -> int:
    """Return a time that can be written; raise InvalidValue naming `field` otherwise."""
    if not _EARLIEST <= microseconds <= _LATEST:
        raise InvalidValue(field, "a time outside the years 1 to 9999", hint="UTC microseconds or RFC 3339")
    return microseconds


def format_time(microseconds: int) -> str:
    """Return RFC 3339 in UTC, microseconds kept."""
    seconds, fraction = divmod(microseconds, SECOND)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=fraction).isoformat().replace("+00:00", "Z")
