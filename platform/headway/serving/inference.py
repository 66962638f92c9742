"""Open Inference Protocol v2 over REST: the same rows and answers under the names its clients know.

Specification: kserve/open-inference-protocol, `inference_rest.md`. Inputs are the entity and request columns by name,
as JSON or as raw bytes behind the JSON (binary tensor data extension), tensor by tensor as the caller likes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headway.core.errors import InvalidValue, Malformed, TooLarge
from headway.core.times import EVENT_TIME
from headway.serving.http import Response
from headway.serving.protocol import DecisionCall, DecisionsBody, decode, moment, refuse_duplicates
from headway.serving.schema import MAX_ROWS, DecisionSchema
from headway.serving.tensors import DATATYPES, from_raw, to_raw

_OUTPUTS = ("score", "label")
_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
EXTENSIONS = ("binary_tensor_data", "model_repository")
_HEADER_LENGTH = b"inference-header-content-length"


class InputTensor(msgspec.Struct, forbid_unknown_fields=True):
    """One input column."""

    name: str
    shape: list[Annotated[int, Meta(ge=0, le=2**31)]]
    datatype: str
    data: list[Any] | UnsetType = UNSET
    """Unset: `binary_data_size` bytes behind the JSON."""
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
    model_name: str | None = None
    """Not in the specification; KServe's client repeats the path's here."""
    model_version: str | None = None


class IndexBody(msgspec.Struct):
    """Body of `/v2/repository/index`."""

    ready: bool = False
    """Only what serves."""


@dataclass(frozen=True, slots=True)
class ModelPath:
    """`/v2/models/<name>[/versions/<version>][/<act>]`."""

    name: str
    version: str | None
    act: str
    """infer, ready, or whatever else was asked; empty: metadata."""

    @classmethod
    def of(cls, path: str) -> ModelPath | None:
        """Return what a path says; None where it is no model's."""
        parts = path.strip("/").split("/")
        if parts[:2] != ["v2", "models"] or len(parts) < 3:
            return None
        rest = parts[3:]
        version = None
        if rest[:1] == ["versions"] and len(rest) >= 2:
            version, rest = rest[1], rest[2:]
        return cls(parts[2], version, "/".join(rest))


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output and how it goes back."""

    name: str
    binary: bool = False


class InferenceProtocol:
    """Decodes and encodes for one use case; the model's name is the use case."""

    def __init__(self, use_case: str, schema: DecisionSchema) -> None:
        self._use_case = use_case
        self._schema = schema
        self._columns = schema.columns + (() if schema.event_id is None else (schema.event_id,))
        self._decoder: msgspec.json.Decoder[InferBody] = msgspec.json.Decoder(InferBody)
        self._index = msgspec.json.Decoder(IndexBody)

    def decode(self, data: bytes, header_length: int | None = None) -> tuple[DecisionCall, tuple[WantedOutput, ...]]:
        """Return the rows and the outputs wanted; errors name the tensor.

        Args:
            data: The body.
            header_length: Bytes of it that are JSON; raw tensors follow. None: all.
        """
        size = len(data) if header_length is None else header_length
        if size > len(data):
            raise Malformed(f"{size} bytes of JSON in a body of {len(data)}", field=_HEADER_LENGTH.decode())
        head = data[:size]
        body = decode(self._decoder, head)
        refuse_duplicates(head)
        raw = _raw_data(body.inputs, memoryview(data)[size:])
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
            columns.append(self._column(tensors[name], dtype, places[name], count, raw))
        if self._schema.event_id is not None:
            name, dtype = self._schema.event_id
            own = self._column(tensors[name], dtype, places[name], count, raw) if name in tensors else [None] * count
            columns.append(own)
        times: list[int | None] = [None] * count
        if EVENT_TIME in tensors:
            place = places[EVENT_TIME]
            values = self._column(tensors[EVENT_TIME], "int64", place, count, raw)
            times = [moment(value, f"{place}.data[{index}]") for index, value in enumerate(values)]
        rows = list(zip(*columns, times, strict=True))
        call = DecisionCall(rows=rows, id=body.id, replayed=EVENT_TIME in tensors)
        return call, _wanted(body)

    def encode(self, answer: DecisionsBody, outputs: tuple[WantedOutput, ...]) -> Response:
        """Return the response: JSON, followed by the outputs that are wanted as bytes."""
        decisions = answer.decisions
        tensors: dict[str, tuple[str, list[Any]]] = {
            "score": ("FP32", [decision.score for decision in decisions]),
            "label": ("BYTES", [decision.label for decision in decisions]),
        }
        described, behind = [], []
        for output in outputs:
            datatype, values = tensors[output.name]
            tensor: dict[str, Any] = {"name": output.name, "shape": [len(decisions), 1], "datatype": datatype}
            if output.binary:
                behind.append(to_raw(datatype, values))
                tensor["parameters"] = {_SIZE: len(behind[-1])}
            else:
                tensor["data"] = values
            described.append(tensor)
        head = msgspec.json.encode(
            {
                "model_name": self._use_case,
                "model_version": answer.model_version,
                "id": answer.id,
                "parameters": {
                    "decision_ids": [decision.decision_id for decision in decisions],
                    "arm": [decision.arm for decision in decisions],
                    "degraded": [",".join(decision.degraded) for decision in decisions],
                },
                "outputs": described,
            }
        )
        if not behind:
            return Response(200, head)
        length = (_HEADER_LENGTH, str(len(head)).encode())
        return Response(200, head + b"".join(behind), (length,), b"application/octet-stream")

    def server(self) -> dict[str, Any]:
        """Return the server metadata."""
        return {"name": "headway", "version": version("headway"), "extensions": list(EXTENSIONS)}

    def ready_only(self, data: bytes) -> bool:
        """Return what an index request asks; an empty body asks for everything."""
        body: IndexBody = decode(self._index, data) if data.strip() else IndexBody()
        return body.ready

    def index(self, champion: str | None, error: str | None, *, ready_only: bool) -> list[dict[str, str]]:
        """Return the repository index (model repository extension): what this application serves."""
        state, reason = ("READY", "") if champion else ("UNAVAILABLE", error or "no version serves")
        if ready_only and not champion:
            return []
        return [{"name": self._use_case, "version": champion or "", "state": state, "reason": reason}]

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """Return the model metadata."""
        inputs = [{"name": name, "datatype": DATATYPES[dtype][0], "shape": [-1, 1]} for name, dtype in self._columns]
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

    def _column(self, tensor: InputTensor, dtype: str, place: str, count: int, raw: dict[str, memoryview]) -> list[Any]:
        if tensor.datatype not in DATATYPES[dtype]:
            raise InvalidValue(f"{place}.datatype", f"{tensor.datatype!r} is not {' or '.join(DATATYPES[dtype])}")
        if tensor.data is UNSET:
            data = from_raw(tensor.datatype, raw[tensor.name], count, place)
        else:
            data = tensor.data
            if data and isinstance(data[0], list):
                data = list(itertools.chain.from_iterable(item if isinstance(item, list) else [item] for item in data))
        if len(data) != count:
            raise InvalidValue(f"{place}.data", f"{len(data)} values for {count} rows")
        try:
            values: list[Any] = msgspec.convert(data, list[self._schema.value_type(tensor.name)])  # type: ignore[misc]  # made at run time
        except msgspec.ValidationError as error:
            what, _, path = str(error).partition(" - at `$")
            raise InvalidValue(f"{place}.data{path.rstrip('`')}", what.replace("`", "")) from None
        return values


def _raw_data(inputs: list[InputTensor], behind: memoryview) -> dict[str, memoryview]:
    """Return the bytes of the tensors that have no data in the JSON, which follow it in order."""
    found, at = {}, 0
    for index, tensor in enumerate(inputs):
        size = tensor.parameters.get(_SIZE)
        place = f"inputs[{index}].parameters.{_SIZE}"
        if tensor.data is not UNSET:
            if size is not None:
                raise InvalidValue(place, "the tensor has data in the JSON too", hint="one of both")
            continue
        if size is None:
            raise InvalidValue(f"inputs[{index}].data", "required and missing")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(behind) - at:
            raise InvalidValue(place, f"{size!r} is not a number of bytes, {len(behind) - at} are left")
        found[tensor.name] = behind[at : at + size]
        at += size
    if at != len(behind):
        raise InvalidValue("inputs", f"{len(behind) - at} bytes behind the JSON belong to no tensor")
    return found


def _wanted(body: InferBody) -> tuple[WantedOutput, ...]:
    binary = _flag(body.parameters, _ALL_BINARY, "parameters", default=False)
    if not body.outputs:
        return tuple(WantedOutput(name, binary) for name in _OUTPUTS)
    wanted: dict[str, WantedOutput] = {}
    for index, output in enumerate(body.outputs):
        if output.name not in _OUTPUTS:
            raise InvalidValue(f"outputs[{index}].name", f"unknown output {output.name!r}", hint="score, label")
        raw = _flag(output.parameters, _BINARY, f"outputs[{index}].parameters", default=binary)
        wanted.setdefault(output.name, WantedOutput(output.name, raw))
    return tuple(wanted.values())


def _flag(parameters: dict[str, Any], name: str, place: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidValue(f"{place}.{name}", f"{value!r} is not true or false")
    return value
