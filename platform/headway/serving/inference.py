"""Open Inference Protocol v2 over REST: the same rows and answers under the names its clients know.

Specification: kserve/open-inference-protocol, `inference_rest.md`. Inputs are the entity and request columns by name,
as JSON or as raw bytes behind the JSON (binary tensor data extension), tensor by tensor as the caller likes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headway.core.errors import InvalidValue, Malformed
from headway.serving.columns import OUTPUTS, Places, Tensor, TensorColumns, wanted_name
from headway.serving.http import Response
from headway.serving.protocol import EXPLAIN, DecisionCall, DecisionsBody, decode, refuse_duplicates
from headway.serving.reasons import reason_lists
from headway.serving.schema import DecisionSchema
from headway.serving.tensors import to_raw

_PLACES = Places(values="inputs[{}].data", raw="inputs[{}].parameters.binary_data_size")
_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
EXTENSIONS = ("binary_tensor_data", "model_repository")
_HEADER_LENGTH = b"inference-header-content-length"


Parameters: TypeAlias = dict[str, bool | int | float | str | None]


class InputTensor(msgspec.Struct, forbid_unknown_fields=True):
    """One input column."""

    name: str
    shape: list[Annotated[int, Meta(ge=0, le=2**31)]]
    datatype: str
    data: list[Any] | UnsetType = UNSET
    """Unset: `binary_data_size` bytes behind the JSON."""
    parameters: Parameters = {}


class OutputRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A wanted output."""

    name: str
    parameters: Parameters = {}


class InferBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `…/infer`."""

    inputs: list[InputTensor]
    id: Annotated[str, Meta(max_length=128)] | None = None
    parameters: Parameters = {}
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
        self._inputs = TensorColumns(schema, _PLACES)
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
        rows, replayed = self._inputs.rows(
            [Tensor(item.name, item.datatype, item.shape, _values(item), raw[i]) for i, item in enumerate(body.inputs)]
        )
        explain = _flag(body.parameters, EXPLAIN, "parameters", default=False)
        call = DecisionCall(rows=rows, id=body.id, replayed=replayed, size=len(data), explain=explain)
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
                    **reason_lists(decisions),
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
        inputs = [{"name": name, "datatype": datatype, "shape": [-1, 1]} for name, datatype in self._inputs.describe()]
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


def _values(tensor: InputTensor) -> list[Any] | None:
    """Return the data in the JSON, one list of them."""
    if tensor.data is UNSET:
        return None
    data = tensor.data
    if data and isinstance(data[0], list):
        return list(itertools.chain.from_iterable(item if isinstance(item, list) else [item] for item in data))
    return data


def _raw_data(inputs: list[InputTensor], behind: memoryview) -> list[memoryview | None]:
    """Return the bytes of each tensor that has no data in the JSON, which follow it in order."""
    found: list[memoryview | None] = []
    at = 0
    for index, tensor in enumerate(inputs):
        size = tensor.parameters.get(_SIZE)
        place = f"inputs[{index}].parameters.{_SIZE}"
        if tensor.data is not UNSET:
            if size is not None:
                raise InvalidValue(place, "the tensor has data in the JSON too", hint="one of both")
            found.append(None)
            continue
        if size is None:
            raise InvalidValue(f"inputs[{index}].data", "required and missing")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(behind) - at:
            raise InvalidValue(place, f"{size!r} is not a number of bytes, {len(behind) - at} are left")
        found.append(behind[at : at + size])
        at += size
    if at != len(behind):
        raise InvalidValue("inputs", f"{len(behind) - at} bytes behind the JSON belong to no tensor")
    return found


def _wanted(body: InferBody) -> tuple[WantedOutput, ...]:
    binary = _flag(body.parameters, _ALL_BINARY, "parameters", default=False)
    if not body.outputs:
        return tuple(WantedOutput(name, binary) for name in OUTPUTS)
    wanted: dict[str, WantedOutput] = {}
    for index, output in enumerate(body.outputs):
        name = wanted_name(output.name, index)
        raw = _flag(output.parameters, _BINARY, f"outputs[{index}].parameters", default=binary)
        wanted.setdefault(name, WantedOutput(name, raw))
    return tuple(wanted.values())


def _flag(parameters: Parameters, name: str, place: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidValue(f"{place}.{name}", f"{value!r} is not true or false")
    return value
