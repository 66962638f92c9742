"""Open Inference Protocol v2 (REST, JSON tensors): the same rows and answers under the names its clients know.

Specification: kserve/open-inference-protocol, `inference_rest.md`. Inputs are the entity and request columns by name.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from headway.core.errors import InvalidValue, TooLarge
from headway.core.times import EVENT_TIME
from headway.serving.protocol import DecisionCall, DecisionsBody, decode, moment, refuse_duplicates
from headway.serving.schema import MAX_ROWS, DecisionSchema

_DATATYPES = {
    "int64": ("INT64", "INT32"),
    "float32": ("FP32", "FP64", "INT64", "INT32"),
    "float64": ("FP64", "FP32", "INT64", "INT32"),
    "string": ("BYTES",),
    "bool": ("BOOL",),
}
_OUTPUTS = ("score", "label")


class InputTensor(msgspec.Struct, forbid_unknown_fields=True):
    """One input column."""

    name: str
    shape: list[Annotated[int, Meta(ge=0, le=2**31)]]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class OutputRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A wanted output."""

    name: str
    parameters: dict[str, Any] = {}


class InferBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `…/infer`."""

    inputs: list[InputTensor]
    id: Annotated[str, Meta(max_length=128)] | None = None
    parameters: dict[str, Any] = {}
    outputs: list[OutputRequest] | None = None


class InferenceProtocol:
    """Decodes and encodes for one use case; the model's name is the use case."""

    def __init__(self, use_case: str, schema: DecisionSchema) -> None:
        self._use_case = use_case
        self._schema = schema
        self._columns = schema.columns + (() if schema.event_id is None else (schema.event_id,))
        self._decoder: msgspec.json.Decoder[InferBody] = msgspec.json.Decoder(InferBody)

    def decode(self, data: bytes) -> tuple[DecisionCall, tuple[str, ...]]:
        """Return the rows and the outputs wanted; errors name the tensor."""
        body = decode(self._decoder, data)
        refuse_duplicates(data)
        tensors: dict[str, InputTensor] = {}
        places: dict[str, str] = {}
        for index, tensor in enumerate(body.inputs):
            if tensor.name in tensors:
                raise InvalidValue(f"inputs[{index}].name", f"{tensor.name!r} comes twice")
            tensors[tensor.name] = tensor
            places[tensor.name] = f"inputs[{index}]"
        known = {**dict(self._columns), EVENT_TIME: "int64"}
        for name in tensors:
            if name not in known:
                raise InvalidValue(
                    f"{places[name]}.name", f"unknown input {name!r}", hint=f"inputs are {', '.join(known)}"
                )
        count = self._rows(tensors, places)
        columns = []
        for name, dtype in self._schema.columns:
            if name not in tensors:
                raise InvalidValue(f"inputs.{name}", "required and missing", code="feature_missing")
            columns.append(self._column(tensors[name], dtype, places[name], count))
        if self._schema.event_id is not None:
            name, dtype = self._schema.event_id
            own = self._column(tensors[name], dtype, places[name], count) if name in tensors else [None] * count
            columns.append(own)
        times: list[int | None] = [None] * count
        if EVENT_TIME in tensors:
            place = places[EVENT_TIME]
            values = self._column(tensors[EVENT_TIME], "int64", place, count)
            times = [moment(value, f"{place}.data[{index}]") for index, value in enumerate(values)]
        rows = list(zip(*columns, times, strict=True))
        call = DecisionCall(rows=rows, id=body.id, replayed=EVENT_TIME in tensors)
        return call, self._outputs(body.outputs)

    def encode(self, answer: DecisionsBody, outputs: tuple[str, ...]) -> bytes:
        """Return the response body."""
        decisions = answer.decisions
        count = len(decisions)
        tensors = {
            "score": ("FP32", [decision.score for decision in decisions]),
            "label": ("BYTES", [decision.label for decision in decisions]),
        }
        return msgspec.json.encode(
            {
                "model_name": self._use_case,
                "model_version": answer.model_version,
                "id": answer.id,
                "parameters": {
                    "decision_ids": [decision.decision_id for decision in decisions],
                    "arm": [decision.arm for decision in decisions],
                    "degraded": [",".join(decision.degraded) for decision in decisions],
                },
                "outputs": [
                    {"name": name, "shape": [count, 1], "datatype": tensors[name][0], "data": tensors[name][1]}
                    for name in outputs
                ],
            }
        )

    def server(self) -> dict[str, Any]:
        """Return the server metadata."""
        return {"name": "headway", "version": "2", "extensions": []}

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """Return the model metadata."""
        inputs = [{"name": name, "datatype": _DATATYPES[dtype][0], "shape": [-1, 1]} for name, dtype in self._columns]
        inputs.append({"name": EVENT_TIME, "datatype": "INT64", "shape": [-1, 1]})
        return {
            "name": self._use_case,
            "versions": versions,
            "platform": "headway",
            "inputs": inputs,
            "outputs": [
                {"name": "score", "datatype": "FP32", "shape": [-1, 1]},
                {"name": "label", "datatype": "BYTES", "shape": [-1, 1]},
            ],
        }

    def _rows(self, tensors: dict[str, InputTensor], places: dict[str, str]) -> int:
        counts = set()
        for name, tensor in tensors.items():
            shape = tensor.shape
            if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
                raise InvalidValue(f"{places[name]}.shape", f"{shape} is not [n, 1] or [n]")
            if shape[0] > MAX_ROWS:
                raise TooLarge(f"{shape[0]} rows, at most {MAX_ROWS}", field=f"{places[name]}.shape")
            counts.add(shape[0])
            if len(counts) > 1:
                raise InvalidValue(f"{places[name]}.shape", "the inputs differ in their number of rows")
        if not counts or counts == {0}:
            raise InvalidValue("inputs", "no rows", hint="send at least one")
        return counts.pop()

    def _column(self, tensor: InputTensor, dtype: str, place: str, count: int) -> list[Any]:
        if tensor.datatype not in _DATATYPES[dtype]:
            raise InvalidValue(f"{place}.datatype", f"{tensor.datatype!r} is not {' or '.join(_DATATYPES[dtype])}")
        data = tensor.data
        if data and isinstance(data[0], list):
            data = list(itertools.chain.from_iterable(item if isinstance(item, list) else [item] for item in data))
        if len(data) != count:
            raise InvalidValue(f"{place}.data", f"{len(data)} values for {count} rows")
        try:
            values: list[Any] = msgspec.convert(data, list[self._schema.value_type(dtype)])  # type: ignore[misc]  # made at run time
        except msgspec.ValidationError as error:
            what, _, path = str(error).partition(" - at `$")
            raise InvalidValue(f"{place}.data{path.rstrip('`')}", what.replace("`", "")) from None
        return values

    @staticmethod
    def _outputs(wanted: list[OutputRequest] | None) -> tuple[str, ...]:
        if not wanted:
            return _OUTPUTS
        for index, output in enumerate(wanted):
            if output.name not in _OUTPUTS:
                raise InvalidValue(f"outputs[{index}].name", f"unknown output {output.name!r}", hint="score, label")
        return tuple(dict.fromkeys(output.name for output in wanted))
