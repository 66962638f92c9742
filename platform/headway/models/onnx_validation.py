"""Checks of an ONNX file's structure before ONNX Runtime sees it, whoever wrote or signed it.

The kernels of tree ensembles and linear models index by numbers in the file: a feature, class or target outside its
range reads or writes beyond an array. External data names files of the machine, and custom operators are code. So the
graph is walked here first; protobuf itself parses in memory-safe code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headway.core.errors import Tampered
from headway.core.types import Int64

MAX_BYTES = 256 * 2**20
DOMAINS = ("", "ai.onnx.ml")
_SAME_WIDTH = ("Cast", "Identity", "Imputer", "Normalizer", "Scaler", "Binarizer")
_ELEMENTWISE = ("Add", "Div", "Mul", "Sub")
_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_LINEAR = ("LinearClassifier", "LinearRegressor")
_UNCHECKED = ("SVMClassifier", "SVMRegressor", "TreeEnsemble")
"""Operators of `ai.onnx.ml` that index by the file too, and that nothing here checks."""
_EXTERNAL = 1
"""`TensorProto.EXTERNAL`."""


def parse_onnx(data: bytes, name: str = "model.onnx") -> Any:
    """Return the ModelProto after checking it; Tampered says what does not hold."""
    import onnx
    from google.protobuf.message import DecodeError

    if len(data) > MAX_BYTES:
        raise Tampered(f"{name} has {len(data):,} bytes, allowed are {MAX_BYTES:,}")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise Tampered(f"{name} is not an ONNX model: {error}") from error
    if model.functions or model.training_info:
        raise Tampered(f"{name} brings functions or training steps of its own")
    if not model.graph.node or any(opset.domain not in DOMAINS for opset in model.opset_import):
        raise Tampered(f"{name} has no nodes, or operators of other domains than {' and '.join(map(repr, DOMAINS))}")
    if model.graph.sparse_initializer:
        raise Tampered(f"{name} has sparse constants")
    for tensor in model.graph.initializer:
        _check_tensor(tensor, name)
    widths = input_widths(model)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    for node in model.graph.node:
        where = f"{name}: {node.op_type} {node.name!r}"
        if node.domain not in DOMAINS:
            raise Tampered(f"{where}: operators of {node.domain!r} are code")
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise Tampered(f"{where}: holds a graph of its own")
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                _check_tensor(tensor, name)
        if node.domain == "ai.onnx.ml":
            _check_ml(node, widths, where)
        _follow(node, widths, sizes)
    return model


def input_widths(model: Any) -> dict[str, int]:
    """Return input → columns of every float32 [n, k] input with a fixed k."""
    constants = {tensor.name for tensor in model.graph.initializer}
    widths = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if value.name not in constants and kind.elem_type == 1 and len(dims) == 2 and dims[1].dim_value > 0:
            widths[value.name] = int(dims[1].dim_value)
    return widths


def _check_tensor(tensor: Any, name: str) -> None:
    if tensor.data_location == _EXTERNAL or tensor.external_data:
        raise Tampered(f"{name}: {tensor.name!r} is kept in another file")
    if any(size < 0 for size in tensor.dims):
        raise Tampered(f"{name}: {tensor.name!r} has a negative size")


def _follow(node: Any, widths: dict[str, int], sizes: dict[str, int]) -> None:
    """Note the width of what the node returns, where it is that of what it takes."""
    given = [widths[name] for name in node.input if name in widths]
    if len(given) != 1 or not node.output:
        return
    others = [sizes.get(name, -1) for name in node.input if name not in widths]
    same = node.op_type in _SAME_WIDTH
    if same or (node.op_type in _ELEMENTWISE and all(size in (1, given[0]) for size in others)):
        widths[node.output[0]] = given[0]


def _check_ml(node: Any, widths: dict[str, int], where: str) -> None:
    if node.op_type in _UNCHECKED:
        raise Tampered(f"{where}: this operator is not supported")
    if node.op_type not in (*_TREES, *_LINEAR):
        return
    width = widths.get(node.input[0])
    if width is None:
        raise Tampered(f"{where}: how many columns it gets is not known")
    values = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in _TREES:
        _check_trees(values, width, node.op_type == "TreeEnsembleClassifier", where)
        return
    coefficients, intercepts = (
        len(values[name].floats) if name in values else 0 for name in ("coefficients", "intercepts")
    )
    targets = coefficients // width
    classes = _classes(values)
    wanted = {"LinearClassifier": (1, classes), "LinearRegressor": (values["targets"].i if "targets" in values else 1,)}
    if coefficients != targets * width or targets not in wanted[node.op_type] or intercepts not in (0, targets):
        raise Tampered(f"{where}: {coefficients} coefficients and {intercepts} intercepts for {width} columns")


def _classes(values: dict[str, Any]) -> int:
    """Return how many classes a classifier names."""
    names = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
    return max((len(values[name].ints) + len(values[name].strings) for name in names if name in values), default=0)


def _check_trees(values: dict[str, Any], width: int, classifier: bool, where: str) -> None:
    def numbers(name: str) -> Int64:
        return np.asarray(values[name].ints if name in values else [], dtype=np.int64)

    trees, nodes = numbers("nodes_treeids"), numbers("nodes_nodeids")
    features = numbers("nodes_featureids")
    kinds = [kind.decode() for kind in values["nodes_modes"].strings] if "nodes_modes" in values else []
    true, false = numbers("nodes_truenodeids"), numbers("nodes_falsenodeids")
    thresholds = len(values["nodes_values"].floats) if "nodes_values" in values else 0
    count = len(nodes)
    if count == 0 or {len(trees), len(features), len(kinds), len(true), len(false), thresholds} != {count}:
        raise Tampered(f"{where}: its lists of nodes differ in length, or are empty")
    for name in ("nodes_missing_value_tracks_true", "nodes_hitrates"):
        found = values.get(name)
        if found is not None and len(found.ints) + len(found.floats) not in (0, count):
            raise Tampered(f"{where}: {name} does not have one entry per node")
    if features.min() < 0 or features.max() >= width:
        raise Tampered(f"{where}: a feature is outside [0, {width})")
    place = {pair: index for index, pair in enumerate(zip(trees.tolist(), nodes.tolist(), strict=True))}
    if len(place) != count:
        raise Tampered(f"{where}: a node is there twice")
    leaf = np.asarray([kind == "LEAF" for kind in kinds])
    _check_acyclic(place, trees, true, false, leaf, where)
    prefix = "class" if classifier else "target"
    targets = numbers(f"{prefix}_ids")
    ends = list(zip(numbers(f"{prefix}_treeids").tolist(), numbers(f"{prefix}_nodeids").tolist(), strict=False))
    weights = len(values[f"{prefix}_weights"].floats) if f"{prefix}_weights" in values else 0
    outputs = _classes(values) if classifier else int(values["n_targets"].i if "n_targets" in values else 1)
    if not len(ends) == len(targets) == weights or any(end not in place or not leaf[place[end]] for end in ends):
        raise Tampered(f"{where}: its {prefix} weights do not belong to its leaves")
    if len(targets) == 0 or targets.min() < 0 or targets.max() >= outputs:
        raise Tampered(f"{where}: a {prefix} is outside [0, {outputs})")


def _check_acyclic(
    place: dict[tuple[int, int], int], trees: Int64, true: Int64, false: Int64, leaf: Any, where: str
) -> None:
    """Children exist and lead away from the root; several nodes may share one (tests of set membership do)."""
    children = []
    for index, tree in enumerate(trees.tolist()):
        pair = () if leaf[index] else ((tree, int(true[index])), (tree, int(false[index])))
        if any(child not in place for child in pair):
            raise Tampered(f"{where}: a child of node {index} is not there")
        children.append(tuple(place[child] for child in pair))
    parents = np.bincount([child for pair in children for child in pair], minlength=len(children))
    free = _roots(parents, trees, where)
    seen = 0
    while free:
        index = free.pop()
        seen += 1
        for child in children[index]:
            parents[child] -= 1
            if parents[child] == 0:
                free.append(child)
    if seen != len(children):
        raise Tampered(f"{where}: its nodes lead back to themselves")


def _roots(parents: Int64, trees: Int64, where: str) -> list[int]:
    roots = np.flatnonzero(parents == 0)
    first: Iterator[int] = iter(trees[roots].tolist())
    if len(set(first)) != len(roots) or set(trees[roots].tolist()) != set(trees.tolist()):
        raise Tampered(f"{where}: a tree has no root, or several")
    return [int(root) for root in roots]
