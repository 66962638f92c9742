"""Change events of a database as JSON, in Debezium's envelope: an inserted row is an event, with or without a schema.

Pure. Events are facts that are added, so a change that updates or deletes a row has no meaning as an event; it is
refused or skipped, as whoever feeds it declares.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from headway.core.errors import InvalidValue
from headway.core.times import DAY
from headway.features.feeds.columns import Columns, plain

_INSERTS = ("c", "r")
"""Created, or read by a snapshot."""
_OTHERS = {"u": "updates a row", "d": "deletes a row", "t": "empties the table"}
_CONNECT, _DEBEZIUM = "org.apache.kafka.connect.data.", "io.debezium.time."
_MICROSECONDS = {
    f"{_DEBEZIUM}NanoTimestamp": lambda value: value // 1_000,
    f"{_DEBEZIUM}MicroTimestamp": lambda value: value,
    f"{_DEBEZIUM}Timestamp": lambda value: value * 1_000,
    f"{_CONNECT}Timestamp": lambda value: value * 1_000,
    f"{_DEBEZIUM}Date": lambda value: value * DAY,
    f"{_CONNECT}Date": lambda value: value * DAY,
}
"""Name of a field's schema → its value as UTC microseconds."""
_LARGEST_SCALE = 300
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}


class OtherChanges(StrEnum):
    """What becomes of updates, deletes and emptied tables."""

    REFUSE = "refuse"
    """They are dead letters with the reason."""
    SKIP = "skip"
    """They are counted, and that is all."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How change events of a table become events of a source."""

    columns: Columns
    others: OtherChanges
    time_unit: str = "us"
    """Of times that are numbers and come without a schema: s, ms or us."""

    def __post_init__(self) -> None:
        """Refuse an unknown unit."""
        if self.time_unit not in _UNITS:
            raise InvalidValue("--time-unit", f"{self.time_unit!r} is no unit of these times", hint="s, ms or us")

    def event(self, value: bytes) -> bytes | None:
        """Return the event that a change event makes, None for one that is skipped; ValueError says why it is none."""
        if not value.strip() or value.strip() == b"null":
            return None  # the tombstone that follows a delete
        try:
            envelope = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"no JSON: {error}") from None
        schema: Any = None
        if isinstance(envelope, dict) and "payload" in envelope and "op" not in envelope:
            schema, envelope = envelope.get("schema"), envelope["payload"]
            if envelope is None:
                return None
        if not isinstance(envelope, dict) or "op" not in envelope:
            raise ValueError("no change event: it has no op")
        op = envelope["op"]
        if isinstance(op, str) and op in _OTHERS:
            if self.others is OtherChanges.SKIP:
                return None
            raise ValueError(f"op {op} {_OTHERS[op]}, and events of {self.columns.source.name} are only added")
        after = envelope.get("after")
        if op not in _INSERTS or not isinstance(after, dict):
            raise ValueError(f"op {op!r} with after {type(after).__name__} is no insert")
        return self._row(after, _fields(schema))

    def _row(self, after: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]]) -> bytes:
        dtypes, row = self.columns.dtypes, dict[str, Any]()
        for there, given in after.items():
            name = self.columns.renamed.get(there, there)
            if name in dtypes and name in row:
                raise ValueError(f"{name}: two columns are named so")
            if name in dtypes:
                converted = self._value(given, kinds.get(there), dtypes[name], name)
                row[name] = plain(converted, dtypes[name], name)
        return self.columns.encode(row)

    def _value(self, value: Any, kind: Mapping[str, Any] | None, dtype: str, name: str) -> Any:
        """Return a value as its schema means it, or by the declared unit where there is none."""
        number = isinstance(value, int) and not isinstance(value, bool)
        if kind is None:
            return value * _UNITS[self.time_unit] if number and dtype == "timestamp" else value
        meaning = kind.get("name")
        if number and isinstance(meaning, str) and meaning in _MICROSECONDS:
            return _MICROSECONDS[meaning](value)
        return _decimal(value, kind, name) if meaning == f"{_CONNECT}Decimal" and isinstance(value, str) else value


def _decimal(value: str, kind: Mapping[str, Any], name: str) -> Decimal:
    """Return what base64 of a two's complement and a scale stand for."""
    try:
        scale = int(kind["parameters"]["scale"])
        if abs(scale) <= _LARGEST_SCALE:
            return Decimal(int.from_bytes(b64decode(value, validate=True), "big", signed=True)).scaleb(-scale)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        pass
    raise ValueError(f"{name}: no decimal of its schema")


def _fields(schema: Any) -> dict[str, Mapping[str, Any]]:
    """Return the schemas of a row's columns: those of the envelope's field `after`."""
    for part in _list(schema):
        if part.get("field") == "after":
            return {str(inner.get("field")): inner for inner in _list(part)}
    return {}


def _list(schema: Any) -> list[dict[str, Any]]:
    fields = schema.get("fields") if isinstance(schema, dict) else None
    return [item for item in fields if isinstance(item, dict)] if isinstance(fields, list) else []
