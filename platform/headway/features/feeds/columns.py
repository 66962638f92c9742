"""Rows as the JSON objects that a stream takes: columns renamed, values in the form of their declared types.

Pure. What does not fit is left as it is where the judgement of events will name it, so that there is one judge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from headway.core.errors import InvalidValue, names_near
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.definitions import EventSource

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE = re.compile(r"[+-]?\d{1,19}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FLAGS = {"true": True, "false": False, "1": True, "0": False}
_NOTHING = ("nan", "")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of what is read become which of the source."""

    source: EventSource
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Name there → name in the source, or a time."""
    known_at_event: bool = False
    """Events without a known_time were known when they happened; else when the stream takes them."""

    @property
    def dtypes(self) -> dict[str, str]:
        """Column of the source or time → dtype."""
        return {**self.source.columns, EVENT_TIME: "timestamp", KNOWN_TIME: "timestamp"}

    def find(self, names: Sequence[str], where: str) -> list[tuple[int, str, str]]:
        """Return place, name in the source and dtype of every column that is wanted.

        Raises InvalidValue for one that is missing or stands twice.
        """
        there = [self.renamed.get(name, name) for name in names]
        for name in (*self.source.columns, EVENT_TIME):
            if name not in there:
                near = names_near(name, names)
                raise InvalidValue(f"{where}: {name}", f"no such column{near}", hint="rename one: --rename THERE=HERE")
        for name in self.renamed:
            if name not in names:
                raise InvalidValue(f"{where}: {name}", f"no such column to rename{names_near(name, names)}")
        dtypes = self.dtypes
        for name in dtypes:
            if there.count(name) > 1:
                raise InvalidValue(f"{where}: {name}", f"{there.count(name)} columns are named so", hint="rename one")
        return [(place, name, dtypes[name]) for place, name in enumerate(there) if name in dtypes]

    def ignored(self, names: Sequence[str]) -> list[str]:
        """Return the names that are of no use."""
        return [name for name in names if self.renamed.get(name, name) not in self.dtypes]

    def encode(self, row: dict[str, Any]) -> bytes:
        """Return a row as JSON; ValueError says what it holds that JSON cannot."""
        if self.known_at_event and row.get(KNOWN_TIME) is None:
            row[KNOWN_TIME] = row.get(EVENT_TIME)
        try:
            return msgspec.json.encode(row)
        except UnicodeEncodeError:
            raise ValueError("not UTF-8") from None
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from None


def plain(value: Any, dtype: str, name: str) -> Any:
    """Return a value of a database or of Arrow as JSON has it; ValueError where it has none."""
    if isinstance(value, Decimal):
        whole = dtype == "int64" and value == value.to_integral_value()
        value = int(value) if whole else float(value)
    if isinstance(value, float):
        return _number(value, dtype, name)
    if dtype == "bool" and value in (0, 1):
        return bool(value)
    if dtype == "timestamp" and isinstance(value, date):
        return microseconds(value)
    if dtype == "string" and isinstance(value, UUID):
        return str(value)
    if value is None or isinstance(value, str | bool | int | list | dict):
        return value
    raise ValueError(f"{name}: {type(value).__name__} is no {dtype}")


def _number(value: float, dtype: str, name: str) -> float | None:
    """Return a number as JSON has it: whole where it has to be and is, None where it is none."""
    if math.isinf(value):
        raise ValueError(f"{name}: is infinite")
    if math.isnan(value):
        return None
    return int(value) if dtype in ("int64", "timestamp") and value.is_integer() else value


def written(text: str, dtype: str) -> Any:
    """Return the value that a text of a CSV file stands for; one that stands for none stays a text."""
    if text == "":
        return None
    if dtype in ("int64", "timestamp"):
        return int(text) if _WHOLE.fullmatch(text) else text
    if dtype in ("float32", "float64"):
        if text.lower() in _NOTHING:
            return None
        number = float(text) if _NUMBER.fullmatch(text) else math.inf
        return number if math.isfinite(number) else text
    if dtype == "bool":
        return _FLAGS.get(text.lower(), text)
    return text


def microseconds(value: date) -> int:
    """Return UTC microseconds of a date or time; a naive one is UTC."""
    moment = value if isinstance(value, datetime) else datetime.combine(value, time(), UTC)
    delta = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
