"""Tensors of the Open Inference Protocol as rows of a decision, whatever wire they came by: REST and gRPC end here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headway.core.errors import InvalidValue, TooLarge
from headway.core.times import EVENT_TIME
from headway.serving.protocol import moment
from headway.serving.schema import MAX_ROWS, DecisionSchema, Row
from headway.serving.tensors import DATATYPES, from_raw, require_finite

OUTPUTS = ("score", "label")


@dataclass(frozen=True, slots=True)
class Places:
    """What a protocol calls the parts of the i-th input in its errors."""

    values: str
    raw: str
    """Where the size of raw bytes is wrong."""


@dataclass(slots=True)
class Tensor:
    """One input as it arrived; of `values` and `raw` one is given."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: Sequence[Any] | None
    raw: bytes | memoryview | None


class TensorColumns:
    """Makes rows of one use case's inputs; errors name the tensor."""

    def __init__(self, schema: DecisionSchema, places: Places) -> None:
        self._schema = schema
        self._columns = schema.columns + (() if schema.event_id is None else (schema.event_id,))
        self._known = {**dict(self._columns), EVENT_TIME: "int64"}
        self._places = places

    def rows(self, tensors: Sequence[Tensor]) -> tuple[list[Row], bool]:
        """Return the rows, and whether the caller chose their times."""
        at: dict[str, int] = {}
        for index, tensor in enumerate(tensors):
            if tensor.name in at:
                raise InvalidValue(f"inputs[{index}].name", f"{tensor.name!r} comes twice")
            if tensor.name not in self._known:
                raise InvalidValue(
                    f"inputs[{index}].name",
                    f"unknown input {tensor.name!r}",
                    hint=f"inputs are {', '.join(self._known)}",
                )
            at[tensor.name] = index
        count = _count(tensors)
        columns = []
        for name, dtype in self._schema.columns:
            if name not in at:
                raise InvalidValue(f"inputs.{name}", "required and missing", code="feature_missing")
            columns.append(self._column(tensors, at[name], dtype, count))
        if self._schema.event_id is not None:
            name, dtype = self._schema.event_id
            columns.append(self._column(tensors, at[name], dtype, count) if name in at else [None] * count)
        times: list[int | None] = [None] * count
        if EVENT_TIME in at:
            values = self._column(tensors, at[EVENT_TIME], "int64", count)
            place = self._places.values.format(at[EVENT_TIME])
            times = [moment(value, f"{place}[{index}]") for index, value in enumerate(values)]
        return list(zip(*columns, times, strict=True)), EVENT_TIME in at

    def describe(self) -> list[tuple[str, str]]:
        """Return (name, datatype) of the inputs."""
        return [(name, DATATYPES[dtype][0]) for name, dtype in self._known.items()]

    def _column(self, tensors: Sequence[Tensor], index: int, dtype: str, count: int) -> list[Any]:
        tensor = tensors[index]
        if tensor.datatype not in DATATYPES[dtype]:
            raise InvalidValue(
                f"inputs[{index}].datatype", f"{tensor.datatype!r} is not {' or '.join(DATATYPES[dtype])}"
            )
        place = self._places.values.format(index)
        if tensor.raw is not None:
            raw = memoryview(tensor.raw)
            data = from_raw(tensor.datatype, raw, count, place, self._places.raw.format(index))
        else:
            assert tensor.values is not None
            if len(tensor.values) != count:
                raise InvalidValue(place, f"{len(tensor.values)} values for {count} rows")
            data = list(tensor.values)
            if tensor.datatype.startswith("FP"):
                require_finite(data, place)
        try:
            values: list[Any] = msgspec.convert(data, list[self._schema.value_type(tensor.name)])  # type: ignore[misc]  # made at run time
        except msgspec.ValidationError as error:
            what, _, path = str(error).partition(" - at `$")
            raise InvalidValue(f"{place}{path.rstrip('`')}", what.replace("`", "")) from None
        return values


def wanted_name(name: str, index: int) -> str:
    """Return the name of a requested output; InvalidValue for one that there is not."""
    if name not in OUTPUTS:
        raise InvalidValue(f"outputs[{index}].name", f"unknown output {name!r}", hint=", ".join(OUTPUTS))
    return name


def _count(tensors: Sequence[Tensor]) -> int:
    """Return the number of rows that all inputs agree on."""
    counts = set()
    for index, tensor in enumerate(tensors):
        shape = tensor.shape
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1) or shape[0] < 0:
            raise InvalidValue(f"inputs[{index}].shape", f"{list(shape[:8])} is not [n, 1] or [n]")
        if shape[0] > MAX_ROWS:
            raise TooLarge(f"{shape[0]} rows, at most {MAX_ROWS}", field=f"inputs[{index}].shape")
        counts.add(shape[0])
        if len(counts) > 1:
            raise InvalidValue(f"inputs[{index}].shape", "the inputs differ in their number of rows")
    if not counts or counts == {0}:
        raise InvalidValue("inputs", "no rows", hint="send at least one")
    return int(counts.pop())
