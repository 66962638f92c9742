"""An ONNX file made elsewhere → the form that our back end serves: one float32 input, one score per row.

Converters return a label and a map of probabilities, of which nobody needs the label: the graph is cut to what leads to
the probability of class 1, or to the one number of a regression, and what is left must be on the list below.
"""

from __future__ import annotations

from typing import Any

from headway.core.errors import InvalidValue, Tampered
from headway.models.onnx_export import OUTPUT
from headway.models.onnx_validation import input_widths, parse_onnx

OPERATORS = frozenset(
    (
        "Abs", "Add", "ArgMax", "ArrayFeatureExtractor", "Binarizer", "Cast", "Clip", "Concat", "Div", "Equal", "Exp",
        "Flatten", "Gather", "Gemm", "Greater", "Identity", "Imputer", "IsNaN", "Less", "LinearClassifier",
        "LinearRegressor", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Normalizer", "Not", "Or", "Pow", "ReduceSum",
        "Relu", "Reshape", "Scaler", "Sigmoid", "Softmax", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh",
        "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Unsqueeze", "Where",
    )
)  # fmt: skip
MAX_BYTES = 64 * 2**20
_BOTH = [0, 1]
_FIELD = "model"


def import_onnx(data: bytes, features: int, *, regression: bool = False) -> bytes:
    """Return the model with input float32 [n, features] and output `score` float32 [n, 1].

    Args:
        data: The file.
        features: Columns that the feature service gives.
        regression: Whether the output is a number, not the probability of class 1.

    Raises InvalidValue for what cannot be served, naming it, and Tampered for a structure that is not sound.
    """
    import onnx

    if len(data) > MAX_BYTES:
        raise InvalidValue(_FIELD, f"{len(data):,} bytes, allowed are {MAX_BYTES:,}", hint="a smaller model")
    try:
        model = parse_onnx(data, _FIELD)
    except Tampered as error:
        raise InvalidValue(_FIELD, str(error), hint="convert it with skl2onnx or onnxmltools") from error
    graph = model.graph
    _require_input(model, features)
    values = _number(graph) if regression else _probabilities(graph)
    _keep(graph, values)
    unknown = sorted({node.op_type for node in graph.node} - OPERATORS)
    if unknown:
        raise InvalidValue(_FIELD, f"operators {', '.join(unknown)} are not supported", hint="simplify the pipeline")
    _name_score(graph, values, regression=regression)
    made = bytes(model.SerializeToString())
    try:
        onnx.checker.check_model(parse_onnx(made, _FIELD))
    except (onnx.checker.ValidationError, Tampered) as error:
        raise InvalidValue(_FIELD, f"is no valid graph: {error}", hint="convert it anew") from error
    return made


def _require_input(model: Any, features: int) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in constants]
    widths = input_widths(model)
    if len(names) != 1 or names[0] not in widths:
        raise InvalidValue(
            _FIELD, f"inputs {', '.join(names)}; expected one, float32 [n, k]", hint="convert with one FloatTensorType"
        )
    if widths[names[0]] != features:
        raise InvalidValue(
            _FIELD,
            f"takes {widths[names[0]]} columns, the feature service gives {features}",
            hint="train it on the service's features, in their order",
        )


def _number(graph: Any) -> str:
    if len(graph.output) != 1:
        raise InvalidValue(_FIELD, f"{len(graph.output)} outputs, a regression has one", hint="regression=False?")
    return str(graph.output[0].name)


def _probabilities(graph: Any) -> str:
    """Return the tensor float32 [n, 2] of probabilities: what ZipMap takes, or the second output."""
    classifiers = [node for node in graph.node if node.op_type.endswith("Classifier")]
    for node in (*classifiers, *(node for node in graph.node if node.op_type == "ZipMap")):
        for attribute in node.attribute:
            if attribute.name.startswith("classlabels") and list(attribute.ints) != _BOTH:
                found = list(attribute.ints) or [text.decode() for text in attribute.strings]
                raise InvalidValue(_FIELD, f"classes {found}; expected 0 and 1", hint="train on the label as it is")
    outputs = [output.name for output in graph.output]
    for node in graph.node:
        if node.op_type == "ZipMap" and node.output[0] in outputs:
            return str(node.input[0])
    if len(outputs) != len(_BOTH):
        raise InvalidValue(
            _FIELD, f"outputs {', '.join(outputs)}; expected label and probabilities", hint="regression=True?"
        )
    return str(outputs[1])


def _keep(graph: Any, wanted: str) -> None:
    """Drop every node and constant that `wanted` does not need."""
    needed, kept = {wanted}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    inputs = [value for value in graph.input if value.name in needed]
    for field, values in (("node", kept[::-1]), ("initializer", constants), ("input", inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    graph.ClearField("value_info")


def _name_score(graph: Any, values: str, *, regression: bool) -> None:
    """Add the nodes that make `score` [n, 1] of `values`, and make it the only output."""
    from numpy import array, int64
    from onnx import TensorProto, helper, numpy_helper

    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    if OUTPUT in taken:
        raise InvalidValue(_FIELD, f"has a tensor named {OUTPUT!r} of its own", hint="name it otherwise")
    if regression:
        graph.initializer.append(numpy_helper.from_array(array([-1, 1], dtype=int64), "score_shape"))
        graph.node.append(helper.make_node("Reshape", [values, "score_shape"], [OUTPUT]))
    else:
        graph.initializer.append(numpy_helper.from_array(array([1], dtype=int64), "score_class"))
        graph.node.append(helper.make_node("Gather", [values, "score_class"], [OUTPUT], axis=1))
    graph.ClearField("output")
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1]))
