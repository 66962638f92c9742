"""`ModelInfer` and the metadata messages of one use case: the same columns and answers as REST, under other names.

Contents are typed or raw, for all inputs alike; the answer comes in the form that the request used. What REST says in
lists of `parameters` (decision_ids, arm, degraded) is the same JSON here, as text: a parameter cannot hold a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from headway.core.errors import InvalidValue, TooLarge
from headway.serving.columns import OUTPUTS, Places, Tensor, TensorColumns, wanted_name
from headway.serving.grpc.messages import RESPONSES
from headway.serving.http import Response
from headway.serving.protocol import EXPLAIN, DecisionCall, DecisionsBody
from headway.serving.reasons import reason_lists
from headway.serving.schema import MAX_ROWS, DecisionSchema
from headway.serving.tensors import to_raw

EXTENSIONS = ("model_repository",)
_PLACES = Places(values="inputs[{}].contents", raw="raw_input_contents[{}]")
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_LONGEST_ID = 128
_NOT_TAKEN = ("shared_memory_region", "classification")
"""Parameters of Triton's clients that change where the answer is: a caller would wait for it in vain."""
_Answer = RESPONSES["ModelInfer"]


@dataclass(frozen=True, slots=True)
class WantedOutputs:
    """Which outputs go back, and how."""

    names: tuple[str, ...]
    raw: bool


class InferMessages:
    """Decodes and encodes for one use case; the model's name is the use case."""

    def __init__(self, use_case: str, schema: DecisionSchema) -> None:
        self._use_case = use_case
        self._inputs = TensorColumns(schema, _PLACES)

    def decode(self, request: Any, patience_s: float | None) -> tuple[DecisionCall, WantedOutputs]:
        """Return the rows and the outputs wanted of a ModelInferRequest; errors name the tensor."""
        if len(request.id) > _LONGEST_ID:
            raise InvalidValue("id", f"longer than {_LONGEST_ID} characters")
        raw = request.raw_input_contents
        count = len(request.inputs)
        if raw and len(raw) != count:
            raise InvalidValue("raw_input_contents", f"{len(raw)} for {count} inputs", hint="one each, or none")
        rows, replayed = self._inputs.rows(
            [_tensor(item, index, raw[index] if raw else None) for index, item in enumerate(request.inputs)]
        )
        names = []
        for index, output in enumerate(request.outputs):
            _refuse_parameters(output.parameters, f"outputs[{index}].parameters")
            names.append(wanted_name(output.name, index))
        explain = _explain(request.parameters)
        call = DecisionCall(rows=rows, id=request.id or None, replayed=replayed, patience_s=patience_s, explain=explain)
        return call, WantedOutputs(tuple(dict.fromkeys(names)) or OUTPUTS, bool(raw))

    def encode(self, answer: DecisionsBody, wanted: WantedOutputs) -> Response:
        """Return a ModelInferResponse."""
        decisions = answer.decisions
        message = _Answer(model_name=self._use_case, model_version=answer.model_version, id=answer.id)
        for name, values in (
            ("decision_ids", [decision.decision_id for decision in decisions]),
            ("arm", [decision.arm for decision in decisions]),
            ("degraded", [",".join(decision.degraded) for decision in decisions]),
            *reason_lists(decisions).items(),
        ):
            message.parameters[name].string_param = msgspec.json.encode(values).decode()
        for name in wanted.names:
            score = name == "score"
            datatype = "FP32" if score else "BYTES"
            output = message.outputs.add(name=name, datatype=datatype, shape=(len(decisions), 1))
            if wanted.raw:
                message.raw_output_contents.append(
                    to_raw(datatype, [item.score if score else item.label for item in decisions])
                )
            elif score:
                output.contents.fp32_contents.extend(item.score for item in decisions)
            else:
                output.contents.bytes_contents.extend(item.label.encode() for item in decisions)
        return Response(200, message.SerializeToString())


def _explain(parameters: Mapping[str, Any]) -> bool:
    if EXPLAIN not in parameters:
        return False
    if parameters[EXPLAIN].WhichOneof("parameter_choice") != "bool_param":
        raise InvalidValue(f"parameters.{EXPLAIN}", "is not a bool_param", hint="true, false, or leave it out")
    return bool(parameters[EXPLAIN].bool_param)


def _tensor(item: Any, index: int, raw: bytes | None) -> Tensor:
    _refuse_parameters(item.parameters, f"inputs[{index}].parameters")
    if raw is not None:
        if item.HasField("contents"):
            raise InvalidValue(f"inputs[{index}].contents", "the tensor has raw contents too", hint="one of both")
        return Tensor(item.name, item.datatype, item.shape, None, raw)
    contents = item.contents
    field = _CONTENTS.get(item.datatype)
    values = () if field is None else getattr(contents, field)
    if not values:
        for other, _ in contents.ListFields():
            raise InvalidValue(
                f"inputs[{index}].contents.{other.name}", f"the datatype is {item.datatype!r}", hint=f"fill {field}"
            )
    if item.datatype == "BYTES":
        if len(values) > MAX_ROWS:
            raise TooLarge(f"{len(values)} values, at most {MAX_ROWS}", field=f"inputs[{index}].contents")
        values = [_text(value, f"inputs[{index}].contents[{place}]") for place, value in enumerate(values)]
    return Tensor(item.name, item.datatype, item.shape, values, None)


def _text(value: bytes, place: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue(place, f"not UTF-8: {error.reason}") from None


def _refuse_parameters(parameters: Mapping[str, Any], place: str) -> None:
    for name in _NOT_TAKEN:
        if name in parameters:
            raise InvalidValue(f"{place}.{name}", "not taken", hint="send and read contents in the message")
