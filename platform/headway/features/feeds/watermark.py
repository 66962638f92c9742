"""The column by which a query is read on: its value in a position, and a bit before it, for rows that come late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from headway.core.errors import CorruptState, InvalidValue
from headway.core.times import parse_duration

_FIELD = "--lookback"


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """A value that a database can be asked for again."""

    kind: str
    text: str

    @classmethod
    def of(cls, value: Any) -> Watermark:
        """Return the watermark of a row; InvalidValue for a type that has no order to read by."""
        if isinstance(value, datetime | date):
            return cls(kind=type(value).__name__, text=value.isoformat())
        if isinstance(value, int | float | Decimal | str) and not isinstance(value, bool):
            return cls(kind=type(value).__name__, text=repr(value) if isinstance(value, float) else str(value))
        raise InvalidValue("--watermark", f"{type(value).__name__} cannot be one", hint="a time, a number or a text")

    @property
    def value(self) -> Any:
        """The value as the database gave it."""
        readers: dict[str, Callable[[str], Any]] = {
            "int": int, "float": float, "Decimal": Decimal, "str": str,
            "datetime": datetime.fromisoformat, "date": date.fromisoformat,
        }  # fmt: skip
        if self.kind not in readers:
            raise CorruptState(f"a watermark of the kind {self.kind!r} cannot be read", hint="begin anew: --restart")
        return readers[self.kind](self.text)

    def before(self, lookback: str | None) -> Any:
        """Return the value `lookback` earlier: a duration for times, a number for numbers; None: itself."""
        value = self.value
        if lookback is None:
            return value
        if isinstance(value, int | float | Decimal):
            try:
                number: Any = type(value)(lookback)
                return value - number
            except (ValueError, ArithmeticError):
                raise InvalidValue(
                    _FIELD, f"{lookback!r} is no {self.kind}", hint="the watermark is a number: give one in its unit"
                ) from None
        span = timedelta(microseconds=parse_duration(lookback, field=_FIELD))
        if isinstance(value, str):
            return _earlier(value, span)
        # whole days only move a date: round up, rather a row too much than one too few
        return value - (span if isinstance(value, datetime) else timedelta(days=-(-span // timedelta(days=1))))


def _earlier(text: str, span: timedelta) -> str:
    """Return an earlier time in the same form, so that a database that compares texts compares times."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValue(
            _FIELD, f"the watermark {text!r} is no time", hint="leave it out, or read by a time"
        ) from None
    if len(text) == len("2018-08-08"):
        return (moment.date() - timedelta(days=-(-span // timedelta(days=1)))).isoformat()
    earlier = (moment - span).isoformat(sep=text[10])
    return earlier.replace("+00:00", "Z") if text.endswith("Z") and moment.tzinfo == UTC else earlier
