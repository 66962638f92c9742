"""The columns a use case's decisions are made of, compiled once into strict decoders.

Rows are tuples in column order whatever protocol they came by; a batch turns them into arrays in one step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from headway.core.errors import DefinitionError
from headway.core.times import EVENT_TIME
from headway.core.types import Columns
from headway.features.definitions import FeatureService
from headway.features.quality.expectations import Expectation, Kind, Severity

MAX_ROWS = 1_000
"""Rows of one request; a larger job belongs to `headway score`."""
_FLOAT32 = float(np.finfo(np.float32).max)
_FLOAT64 = float(np.finfo(np.float64).max)
_BOUNDS: dict[str, tuple[float, float]] = {
    "int64": (-(2**63), 2**63 - 1),
    "float32": (-_FLOAT32, _FLOAT32),
    "float64": (-_FLOAT64, _FLOAT64),
}
_TYPES: dict[str, Any] = {
    "int64": Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)],
    "float32": Annotated[float, Meta(ge=-_FLOAT32, le=_FLOAT32)],
    "float64": Annotated[float, Meta(ge=-_FLOAT64, le=_FLOAT64)],
    "string": Annotated[str, Meta(min_length=1, max_length=256)],
    "bool": bool,
}
_ARRAYS: dict[str, Any] = {
    "int64": np.int64,
    "float32": np.float32,
    "float64": np.float64,
    "string": object,
    "bool": np.bool_,
}
Row = tuple[Any, ...]
"""Values in the order of `DecisionSchema.names`, the event's id or None where the schema has one, then the row's
event_time (microseconds) or None."""


@dataclass(frozen=True, kw_only=True)
class DecisionSchema:
    """Names and types of a decision's input."""

    keys: tuple[tuple[str, str], ...]
    """(column, dtype) that views are joined by."""
    request: tuple[tuple[str, str], ...]
    """(column, dtype) that come with the request, without event_time."""
    expectations: tuple[Expectation, ...] = ()
    """Of request columns: what breaks one that rejects is refused."""
    event_id: tuple[str, str] | None = None
    """(column, dtype) of the client's own id, which a row may leave out."""

    @classmethod
    def of(cls, service: FeatureService) -> DecisionSchema:
        """Return the schema of a feature service; DefinitionError for a dtype that a request cannot carry."""
        keys = tuple(service.key_columns.items())
        request = tuple((name, dtype) for name, dtype in service.request.items() if name != EVENT_TIME)
        for name, dtype in (*keys, *request):
            if dtype not in _TYPES:
                raise DefinitionError(
                    f"requests cannot carry {dtype}",
                    field=f"{service.name}.{name}",
                    expected=f"one of {', '.join(_TYPES)}",
                )
        own = None if service.event_id is None else (service.event_id, service.event_id_dtype)
        return cls(keys=keys, request=request, expectations=service.expectations, event_id=own)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """All (column, dtype) in order."""
        return self.keys + self.request

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(name for name, _ in self.columns)

    def row_type(self) -> type[msgspec.Struct]:
        """Return a strict struct of one row: every column required; the event's id and `event_time` may come too."""
        fields: list[Any] = [(name, self.value_type(name)) for name, _ in self.columns]
        if self.event_id is not None:
            fields.append((self.event_id[0], _TYPES[self.event_id[1]] | None, None))
        fields.append((EVENT_TIME, int | str | None, None))
        return msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)

    def value_type(self, column: str) -> Any:
        """Return the type that one value of a column is checked against: its dtype's, within what is expected of it."""
        dtype = {**dict(self.columns), EVENT_TIME: "int64"}.get(column) or self._own_type(column)
        mine = [item for item in self.expectations if column in item.columns and item.severity is Severity.REJECT]
        if not mine:
            return _TYPES[dtype]
        low, high = _BOUNDS.get(dtype, (-math.inf, math.inf))
        values: tuple[Any, ...] | None = None
        for item in mine:
            if item.kind is Kind.ONE_OF:
                values = item.values if values is None else tuple(value for value in values if value in item.values)
            else:
                low = low if item.low is None else max(low, item.low)
                high = high if item.high is None else min(high, item.high)
        if values is not None:
            values = tuple(value for value in values if isinstance(value, str) or low <= value <= high)
        if low > high or values == ():
            raise DefinitionError("the expectations leave no value", field=column, expected="some that may come")
        if values is not None:
            return Literal[values]
        if dtype == "int64":
            return Annotated[int, Meta(ge=math.ceil(low), le=math.floor(high))]
        return Annotated[float, Meta(ge=low, le=high)]

    def _own_type(self, column: str) -> str:
        if self.event_id is None or column != self.event_id[0]:
            raise DefinitionError("no column of a decision", field=column, expected=", ".join(self.names))
        return self.event_id[1]

    def arrays(self, rows: list[Row]) -> Columns:
        """Return rows as columns."""
        values = zip(*rows, strict=True) if rows else ([] for _ in self.columns)
        return {name: _array(list(column), dtype) for (name, dtype), column in zip(self.columns, values, strict=False)}

    def event_ids(self, rows: Iterable[Row]) -> list[Any] | None:
        """Return each row's event id; None where the schema has none."""
        return None if self.event_id is None else [row[-2] for row in rows]


def _array(values: list[Any], dtype: str) -> npt.NDArray[np.generic]:
    return np.array(values, dtype=_ARRAYS[dtype])
