"""Checks of a model file's structure before a native parser sees it.

XGBoost trusts the node indices in its JSON: out-of-range ones corrupt memory. A signature says who wrote the file, not
that it is sound, so the indices are checked here, in Python, first.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from headway.core.errors import Tampered
from headway.core.types import Int64

MAX_CATEGORY = 1 << 14
"""XGBoost reserves a bit for each code up to the largest, in every node."""
_ARRAYS = (
    "left_children", "right_children", "parents", "split_indices", "split_conditions", "default_left",
    "base_weights", "loss_changes", "sum_hessian", "split_type",
)  # fmt: skip


def parse_model_json(data: bytes, name: str = "model.json") -> dict[str, Any]:
    """Return the parsed model after checking every tree; Tampered says what does not hold."""
    try:
        model: dict[str, Any] = json.loads(data)
        learner = model["learner"]
        count = int(learner["learner_model_param"]["num_feature"])
        booster = learner["gradient_booster"]["model"]
        trees = booster["trees"]
        if len(booster["tree_info"]) != len(trees):
            raise Tampered(f"{name}: {len(trees)} trees, {len(booster['tree_info'])} entries in tree_info")
        for index, tree in enumerate(trees):
            _check_tree(tree, count, f"{name}: tree {index}")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Tampered(f"{name} is not an XGBoost model: {error!r}") from error
    return model


def _check_tree(tree: dict[str, Any], features: int, where: str) -> None:
    arrays = {name: np.asarray(tree[name]) for name in _ARRAYS}
    number = len(arrays["left_children"])
    if number == 0 or int(tree["tree_param"]["num_nodes"]) != number:
        raise Tampered(f"{where}: num_nodes does not match its {number} nodes")
    for name, values in arrays.items():
        if values.shape != (number,):
            raise Tampered(f"{where}: {name} has shape {values.shape}, expected ({number},)")
    if not np.array_equal(arrays["left_children"] == -1, arrays["right_children"] == -1):
        raise Tampered(f"{where}: a node has one child")
    reachable(arrays["left_children"], arrays["right_children"], where)
    split = arrays["split_indices"]
    if split.min() < 0 or split.max() >= features:
        raise Tampered(f"{where}: a split index is outside [0, {features})")
    if not np.isfinite(arrays["split_conditions"].astype(np.float64)).all():
        raise Tampered(f"{where}: a split condition is not finite")
    _check_categories(tree, arrays["split_type"], where)


def _check_categories(tree: dict[str, Any], kind: Int64, where: str) -> None:
    """Categorical nodes name segments of one list of codes; each must be where XGBoost will read."""
    codes, nodes, starts, sizes = (
        np.asarray(tree[name], dtype=np.int64)
        for name in ("categories", "categories_nodes", "categories_segments", "categories_sizes")
    )
    if not len(nodes) == len(starts) == len(sizes) or not np.array_equal(np.flatnonzero(kind == 1), nodes):
        raise Tampered(f"{where}: the categorical nodes are not those with categories")
    if not np.isin(kind, (0, 1)).all():
        raise Tampered(f"{where}: a split is neither numerical nor categorical")
    ends = np.cumsum(sizes)
    if (sizes < 1).any() or not np.array_equal(starts, ends - sizes) or len(codes) != (ends[-1] if len(ends) else 0):
        raise Tampered(f"{where}: the segments of its categories do not fit")
    if len(codes) and (codes.min() < 0 or codes.max() >= MAX_CATEGORY):
        raise Tampered(f"{where}: a category is outside [0, {MAX_CATEGORY})")


def reachable(left: Int64, right: Int64, where: str = "tree") -> Int64:
    """Return the nodes that a walk from the root meets, ascending; Tampered unless they form a tree."""
    seen = np.zeros(len(left), dtype=bool)
    seen[0] = True
    level = np.zeros(1, dtype=np.int64)
    while len(level):
        inner = level[left[level] != -1]
        level = np.concatenate([left[inner], right[inner]]).astype(np.int64)
        if len(level) and (level.min() < 0 or level.max() >= len(left)):
            raise Tampered(f"{where}: a child index is outside [0, {len(left)})")
        if seen[level].any() or len(np.unique(level)) != len(level):
            raise Tampered(f"{where}: a node is reached twice")
        seen[level] = True
    return np.flatnonzero(seen)
