from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import HeadwayError, InvalidValue, TooLarge
from headway.serving.grpc.messages import REQUESTS, RESPONSES, parse
from headway.serving.grpc.protocol import InferMessages, WantedOutputs
from headway.serving.inference import InferenceProtocol
from headway.serving.protocol import Decision, DecisionsBody
from tests.serving.grpc.helpers import infer
from tests.serving.helpers import schema

messages = InferMessages("toy", schema)
ANSWER = DecisionsBody(
    "mine", "7", [Decision("d1", 0.25, "low", "champion", []), Decision("d2", 0.75, "hïgh", "rules", ["stale:x", "y"])]
)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
COLUMNS = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(min_size=1, max_size=20), FLOAT32), min_size=1, max_size=5
)


@given(COLUMNS, st.booleans())
def test_typed_raw_and_rest_say_the_same_rows(rows: list[tuple[int, str, float]], timed: bool) -> None:
    ids, shops, amounts = (list(values) for values in zip(*rows, strict=True))
    columns: dict[str, Any] = {"amount": ("FP32", amounts), "shop": ("BYTES", shops), "customer_id": ("INT64", ids)}
    if timed:
        columns["event_time"] = ("INT64", list(range(len(rows))))
    body = {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [len(rows), 1], "data": values}
            for name, (datatype, values) in columns.items()
        ]
    }
    wanted, _ = InferenceProtocol("toy", schema).decode(json.dumps(body).encode())
    for raw in (False, True):
        call, outputs = messages.decode(infer(columns, raw=raw), None)
        assert (call.rows, call.replayed) == (wanted.rows, timed)
        assert outputs == WantedOutputs(("score", "label"), raw)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [("INT8", [-7]), ("INT16", [7]), ("INT32", [7]), ("UINT8", [7]), ("UINT16", [7]), ("UINT32", [7]), ("FP64", [7.5])],
)
@pytest.mark.parametrize("raw", [False, True])
def test_other_datatypes_carry_a_column(datatype: str, values: list[Any], raw: bool) -> None:
    columns: dict[str, Any] = {"customer_id": ("INT64", [1]), "shop": ("BYTES", ["a"]), "amount": (datatype, values)}
    call, _ = messages.decode(infer(columns, raw=raw), 0.5)
    assert call.rows == [(1, "a", values[0], None)]
    assert call.patience_s == 0.5


def broken(change: str) -> Any:
    message = infer(raw=change.startswith("raw"))
    match change:
        case "typed and raw":
            message.raw_input_contents.extend([b"", b"", b""])
        case "raw, too few":
            message.raw_input_contents.pop()
        case "raw, short":
            message.raw_input_contents[2] = b"\0"
        case "raw, not a number":
            message.raw_input_contents[2] = b"\0\0\xc0\x7f" * 2
        case "not a number":
            message.inputs[2].contents.fp32_contents[1] = float("nan")
        case "no text":
            message.inputs[1].contents.bytes_contents[1] = b"\xff"
        case "empty text":
            message.inputs[1].contents.bytes_contents[0] = b""
        case "other contents":
            message.inputs[0].contents.Clear()
            message.inputs[0].contents.fp32_contents.extend([1, 2])
        case "other datatype":
            message.inputs[0].datatype = "FP32"
        case "no such datatype":
            message.inputs[0].datatype = "FP16"
        case "too few values":
            message.inputs[0].contents.int64_contents.pop()
        case "shape":
            message.inputs[1].shape.append(2)
        case "negative shape":
            message.inputs[1].shape[0] = -1
        case "rows differ":
            message.inputs[1].shape[0] = 1
        case "no rows":
            message.inputs[0].shape[0] = message.inputs[1].shape[0] = message.inputs[2].shape[0] = 0
        case "missing":
            del message.inputs[1]
        case "twice":
            message.inputs.append(message.inputs[1])
        case "unknown":
            message.inputs.add(name="colour")
        case "unknown output":
            message.outputs.add(name="score")
            message.outputs.add(name="reason")
        case "shared memory":
            message.inputs[0].parameters["shared_memory_region"].string_param = "x"
        case "classes":
            message.outputs.add(name="score").parameters["classification"].int64_param = 2
        case "long id":
            message.id = "x" * 129
        case "time":
            message.inputs.add(name="event_time", datatype="INT64", shape=(2, 1)).contents.int64_contents.extend(
                [0, 2**62]
            )
    return message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("typed and raw", "inputs[0].contents"),
        ("raw, too few", "raw_input_contents"),
        ("raw, short", "raw_input_contents[2]"),
        ("raw, not a number", "inputs[2].contents[0]"),
        ("not a number", "inputs[2].contents[1]"),
        ("no text", "inputs[1].contents[1]"),
        ("empty text", "inputs[1].contents[0]"),
        ("other contents", "inputs[0].contents.fp32_contents"),
        ("other datatype", "inputs[0].contents.int64_contents"),
        ("no such datatype", "inputs[0].contents.int64_contents"),
        ("too few values", "inputs[0].contents"),
        ("shape", "inputs[1].shape"),
        ("negative shape", "inputs[1].shape"),
        ("rows differ", "inputs[1].shape"),
        ("no rows", "inputs"),
        ("missing", "inputs.shop"),
        ("twice", "inputs[3].name"),
        ("unknown", "inputs[3].name"),
        ("unknown output", "outputs[1].name"),
        ("shared memory", "inputs[0].parameters.shared_memory_region"),
        ("classes", "outputs[0].parameters.classification"),
        ("long id", "id"),
        ("time", "inputs[3].contents[1]"),
    ],
)
def test_what_cannot_be_used_is_named(change: str, field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        messages.decode(broken(change), None)
    assert refused.value.field == field


def test_too_many_rows_are_refused_before_they_are_read() -> None:
    message = infer({"customer_id": ("INT64", [1] * 1_001)})
    with pytest.raises(TooLarge) as refused:
        messages.decode(message, None)
    assert refused.value.field == "inputs[0].shape"


GOOD = [infer(raw=raw).SerializeToString() for raw in (False, True)]
TORN = st.tuples(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), max_size=4)).map(
    lambda drawn: bytes(dict(drawn[1]).get(place, byte) for place, byte in enumerate(drawn[0]))
)


@given(st.binary(max_size=200) | TORN)
def test_any_bytes_are_rows_or_refused(data: bytes) -> None:
    try:
        call, _ = messages.decode(parse("ModelInfer", data), None)
    except HeadwayError:
        return
    assert call.rows


@pytest.mark.parametrize("raw", [False, True])
def test_the_answer_comes_in_the_form_of_the_request(raw: bool) -> None:
    _, wanted = messages.decode(infer(raw=raw), None)
    answer = RESPONSES["ModelInfer"].FromString(messages.encode(ANSWER, wanted).body)
    assert (answer.model_name, answer.model_version, answer.id) == ("toy", "7", "mine")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [
        ("score", "FP32", [2, 1]),
        ("label", "BYTES", [2, 1]),
    ]
    said = {name: json.loads(value.string_param) for name, value in answer.parameters.items()}
    assert said == {"decision_ids": ["d1", "d2"], "arm": ["champion", "rules"], "degraded": ["", "stale:x,y"]}
    if raw:
        assert list(answer.raw_output_contents) == [
            b"\x00\x00\x80>\x00\x00@?",
            b"\x03\x00\x00\x00low\x05\x00\x00\x00h\xc3\xafgh",
        ]
        assert not any(output.HasField("contents") for output in answer.outputs)
    else:
        assert list(answer.outputs[0].contents.fp32_contents) == [0.25, 0.75]
        assert list(answer.outputs[1].contents.bytes_contents) == [b"low", "hïgh".encode()]
        assert not answer.raw_output_contents


def test_requested_outputs_come_once_in_their_order() -> None:
    message = infer()
    for name in ("label", "score", "label"):
        message.outputs.add(name=name)
    _, wanted = messages.decode(message, None)
    answer = RESPONSES["ModelInfer"].FromString(messages.encode(ANSWER, wanted).body)
    assert [output.name for output in answer.outputs] == ["label", "score"]
    assert REQUESTS["ModelInfer"].DESCRIPTOR.full_name == "inference.ModelInferRequest"
