"""From messages to rows of a source: what cannot be one becomes a dead letter that says why.

Pure: the same messages and the same horizon give the same rows, so that a batch can be made again after a crash. A
message is a JSON object with the source's columns, but for those that are optional, and `event_time`; without
`known_time` an event was known when the stream took it. A row that alone breaks what its source promises is refused
too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.times import DAY, EVENT_TIME, KNOWN_TIME, format_duration
from headway.core.types import Int64
from headway.features.aggregates import HASHED
from headway.features.arrow import ARROW_TYPES, numbers
from headway.features.definitions import EventSource, View, WindowView
from headway.features.quality.rows import row_breaches
from headway.features.streams.port import Message

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Time = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)] | datetime
_TYPES: dict[str, Any] = {
    "int64": _Int64,
    "float32": float,
    "float64": float,
    "string": str,
    "bool": bool,
    "timestamp": _Time,
}
_FARTHEST = 999 * 365 * DAY
_LARGEST = float(2**53)
_REASON = 300
_PLACE = re.compile(r"missing required field `(.*)`$| - at `\$\.([^`]*)`$")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is no event."""

    message: Message
    reason: str
    field: str = ""
    """Column or time that is wrong; empty: the message as a whole."""


@dataclass(kw_only=True)
class Decoded:
    """What a batch of messages holds."""

    rows: pa.Table
    """The source's columns, event_time and known_time, in the order of the messages."""
    dead: list[DeadLetter] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    """Fields that came and that the source does not have; they are left out."""


class Decoder:
    """Reads messages of one source, for certain views."""

    def __init__(self, source: EventSource, views: Sequence[View]) -> None:
        """Compile the source's columns."""
        self._source = source
        self._names = list(source.columns)
        self._bounds = sorted(
            {
                (column, scale)
                for view in views
                if isinstance(view, WindowView)
                for column, scale in view.columns
                if scale != HASHED
            }
        )
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
            (f"c{i}", _TYPES[dtype] | None, None)
            if name in source.optional
            else (f"c{i}", _TYPES[dtype] if name == source.id else _TYPES[dtype] | None)
            for i, (name, dtype) in enumerate(source.columns.items())
        ]
        fields += [("event", _Time), ("known", _Time | None, None)]
        rename = {f"c{i}": name for i, name in enumerate(self._names)} | {"event": EVENT_TIME, "known": KNOWN_TIME}
        options: dict[str, Any] = {"rename": rename, "gc": False, "kw_only": True}  # in the order of the columns
        loose = msgspec.defstruct("Event", fields, **options)
        strict = msgspec.defstruct("StrictEvent", fields, **options, forbid_unknown_fields=True)
        self._strict = msgspec.json.Decoder(strict)
        self._loose = msgspec.json.Decoder(loose)
        self._fields = msgspec.json.Decoder(dict[str, msgspec.Raw])

    def decode(self, messages: Sequence[Message], horizon: int) -> Decoded:
        """Return rows and dead letters; no event may lie further than the source's `max_ahead` after the horizon."""
        found: list[Any] = []
        places: list[int] = []
        reasons: dict[int, tuple[str, str]] = {}
        unknown: set[str] = set()
        decode = self._strict.decode
        for place, message in enumerate(messages):
            try:
                found.append(decode(message.value))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                try:
                    found.append(self._loose.decode(message.value))
                    unknown.update(self._fields.decode(message.value))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    reasons[place] = _told(error)
                    continue
            places.append(place)
        unknown -= {*self._names, EVENT_TIME, KNOWN_TIME}
        rows = self._table(found, [messages[place].published for place in places])
        refused = self.refused(rows, horizon)
        for promise, broken in row_breaches(self._source, rows):
            for row in np.flatnonzero(broken).tolist():
                refused.setdefault(row, (promise.columns[0], promise.name[:_REASON]))
        if refused:
            reasons |= {places[row]: reason for row, reason in refused.items()}
            kept = np.ones(rows.num_rows, np.bool_)
            kept[list(refused)] = False
            rows = rows.filter(pa.array(kept))
        dead = [
            DeadLetter(message=messages[place], field=field, reason=reason)
            for place, (field, reason) in sorted(reasons.items())
        ]
        return Decoded(rows=rows, dead=dead, unknown=unknown)

    def _table(self, events: Sequence[Any], published: Sequence[int]) -> pa.Table:
        given = list(zip(*map(msgspec.structs.astuple, events), strict=True)) or [()] * (len(self._names) + 2)
        columns = {}
        for (name, dtype), values in zip(self._source.columns.items(), given, strict=False):
            if dtype == "timestamp":
                columns[name] = _moments(values)
                continue
            wide = pa.array(values, pa.float64() if dtype == "float32" else ARROW_TYPES[dtype])
            columns[name] = wide.cast(pa.float32(), safe=False) if dtype == "float32" else wide
        columns[EVENT_TIME] = _moments(given[-2])
        columns[KNOWN_TIME] = pc.coalesce(_moments(given[-1]), pa.array(published, pa.int64()))
        return pa.table(columns)

    def refused(self, rows: pa.Table, horizon: int) -> dict[int, tuple[str, str]]:
        """Return row → field and why lake or views could not take it; of several reasons the first."""
        reasons: dict[int, tuple[str, str]] = {}
        event, known = _int64(rows, EVENT_TIME), _int64(rows, KNOWN_TIME)
        ahead = self._source.max_ahead
        far = f"is more than {format_duration(ahead)} after"
        for name, why, wrong in (
            (EVENT_TIME, "is more than 999 years from 1970", np.abs(event) > _FARTHEST),
            (KNOWN_TIME, "is more than 999 years from 1970", np.abs(known) > _FARTHEST),
            (EVENT_TIME, f"{far} the clock", event > horizon + ahead),
            (KNOWN_TIME, f"{far} the clock", known > horizon + ahead),
            (EVENT_TIME, f"{far} its known_time", event - ahead > known),
            *(
                (column, f"times {scale} does not fit 53 bits", self._too_large(rows, column, scale))
                for column, scale in self._bounds
            ),
        ):
            for row in np.flatnonzero(wrong).tolist():
                reasons.setdefault(row, (name, f"{name}: {why}"))
        return reasons

    def _too_large(self, rows: pa.Table, column: str, scale: int) -> npt.NDArray[np.bool_]:
        values = numbers(rows, column, self._source.columns[column]).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.abs(np.rint(values * scale)) >= _LARGEST


def _int64(rows: pa.Table, name: str) -> Int64:
    return np.asarray(rows[name].to_numpy(), np.int64)


def _moments(values: Sequence[int | datetime | None]) -> pa.Array:
    """Return times as int64 microseconds; mostly they are that already."""
    try:
        return pa.array(values, pa.int64())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else _microseconds(value) for value in values], pa.int64())


def _microseconds(value: int | datetime) -> int:
    if isinstance(value, int):
        return value
    delta = (value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _told(error: Exception) -> tuple[str, str]:
    """Return the field that an error of the decoder is about, if any, and what it says."""
    line = str(error).partition("\n")[0][:_REASON] or type(error).__name__
    found = _PLACE.search(line)
    return found[1] or found[2] if found else "", line
