"""The nodes of XGBoost's trees as ONNX lists them.

A split by a set of categories becomes a chain of equality tests that all lead to the same child; ONNX Runtime knows the
chain and makes one test of set membership of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headway.core.types import Int64
from headway.models.validation import reachable

_NODE = (
    "treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true",
)  # fmt: skip


def attributes(trees: list[dict[str, Any]], base: np.float32) -> dict[str, list[Any]]:
    """Return the attributes of a TreeEnsembleRegressor; `base` is added to the leaves of the first tree."""
    found: dict[str, list[Any]] = {f"nodes_{name}": [] for name in _NODE}
    found |= {f"target_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")}
    for index, tree in enumerate(trees):
        left, right = np.asarray(tree["left_children"]), np.asarray(tree["right_children"])
        nodes = reachable(left, right)  # pruning leaves unused nodes behind
        leaf = left[nodes] == -1
        values = np.asarray(tree["split_conditions"], dtype=np.float32)[nodes]
        columns = {
            "treeids": np.full(len(nodes), index),
            "nodeids": nodes,
            "featureids": np.where(leaf, 0, np.asarray(tree["split_indices"])[nodes]),
            "modes": np.where(leaf, "LEAF", "BRANCH_LT"),
            "values": np.where(leaf, np.float32(0), values),
            "truenodeids": np.where(leaf, 0, left[nodes]),
            "falsenodeids": np.where(leaf, 0, right[nodes]),
            "missing_value_tracks_true": np.where(leaf, 0, np.asarray(tree["default_left"])[nodes]),
        }
        lists = {name: column.tolist() for name, column in columns.items()}
        if tree["categories"]:
            _chain(lists, tree, nodes, len(left))
        for name, items in lists.items():
            found[f"nodes_{name}"] += items
        weights = values[leaf] + base if index == 0 else values[leaf]
        found["target_treeids"] += [index] * len(weights)
        found["target_nodeids"] += nodes[leaf].tolist()
        found["target_ids"] += [0] * len(weights)
        found["target_weights"] += weights.tolist()
    return found


def _chain(lists: dict[str, list[Any]], tree: dict[str, Any], nodes: Int64, unused: int) -> None:
    """Replace each categorical node by tests `= code`, of which the last one's other way leads left.

    XGBoost: a code of the set goes right, any other left; what is missing goes as `default_left` says, which the first
    test decides for all. `unused` is the first free node id.
    """
    where = {node: position for position, node in enumerate(nodes.tolist())}
    for node, start, size in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        if node not in where:
            continue
        at = where[node]
        left, right = lists["truenodeids"][at], lists["falsenodeids"][at]
        codes = sorted(tree["categories"][start : start + size])
        missing = 1 - int(tree["default_left"][node])
        lists["modes"][at], lists["values"][at] = "BRANCH_EQ", float(codes[0])
        lists["truenodeids"][at], lists["missing_value_tracks_true"][at] = right, missing
        last = at
        for code in codes[1:]:
            lists["falsenodeids"][last] = unused
            for name, value in zip(
                _NODE,
                (lists["treeids"][at], unused, lists["featureids"][at], "BRANCH_EQ", float(code), right, left, missing),
                strict=True,
            ):
                lists[name].append(value)
            last, unused = len(lists["nodeids"]) - 1, unused + 1
        lists["falsenodeids"][last] = left
