"""Contributions add up to the margin, agree with the served score, and are Shapley values."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import SystemClock
from headway.core.errors import Tampered
from headway.core.types import Matrix
from headway.features.profile import build_profile
from headway.governance.statement import sign_version, verify_version
from headway.models.artefact import Artefact, load_artefact, write_artefact
from headway.models.explain import (
    LOG_ODDS,
    PERMUTATIONS,
    SCORE,
    TREE_SHAP,
    Float64,
    PermutationShapley,
    TreeShap,
    open_explainer,
    reference_row,
    to_score,
)
from headway.models.input_schema import describe_input
from headway.models.onnx_export import tree_models
from tests.models.conftest import NAMES, Made, make_booster, make_matrix

values = st.one_of(st.floats(-4, 4, width=32), st.just(math.nan))
rows = st.lists(st.tuples(*[values] * len(NAMES)), min_size=1, max_size=8)


def loaded(made: Made) -> Artefact:
    statement = verify_version(made.folder, made.trust, name="fraud", clock=SystemClock())
    return load_artefact(made.folder, statement, trial=False)


class Formula:
    """A back end that is a formula over columns."""

    name = "formula"

    def __init__(self, formula: Callable[[Matrix], Matrix]) -> None:
        self.formula = formula
        self.rows = 0

    def predict(self, matrix: Matrix) -> Matrix:
        self.rows += len(matrix)
        return np.asarray(self.formula(np.nan_to_num(matrix)), dtype=np.float32)


def shapley(formula: Callable[[Matrix], Matrix], row: Matrix, reference: Matrix) -> Float64:
    """The definition: the mean over all orders of what a feature adds."""
    k = len(row)
    found = np.zeros(k)
    orders = list(itertools.permutations(range(k)))
    for order in orders:
        step = reference.copy()
        before = float(formula(step[None])[0])
        for place in order:
            step[place] = row[place]
            after = float(formula(step[None])[0])
            found[place] += (after - before) / len(orders)
            before = after
    return found


@settings(deadline=None, max_examples=25)
@given(rows=rows)
def test_trees_contributions_and_base_are_the_margin_of_the_served_score(made: Made, rows: list[tuple[float]]) -> None:
    matrix = np.array(rows, np.float32)
    found = TreeShap(bytes(made.booster.save_raw("json")), unit=LOG_ODDS).explain(matrix)
    assert np.allclose(found.base + found.contributions.sum(axis=1), found.margin, atol=1e-4)
    assert np.allclose(to_score(found.margin, LOG_ODDS), made.booster.inplace_predict(matrix), atol=1e-6)


def test_trees_contributions_are_exact_for_a_single_split() -> None:
    """One tree of one split: by definition a leaf minus the mean of the leaves by cover."""
    import json

    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(500, 2)).astype(np.float32)
    booster = make_booster(np.pad(matrix, ((0, 0), (0, 2))), rounds=1, max_depth=1)
    [tree] = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    left, right = tree["split_conditions"][1], tree["split_conditions"][2]
    cover = tree["sum_hessian"]
    mean = (left * cover[1] + right * cover[2]) / cover[0]
    feature, split = tree["split_indices"][0], tree["split_conditions"][0]
    rows = np.zeros((2, 4), np.float32)
    rows[:, feature] = split - 1, split + 1
    found = TreeShap(bytes(booster.save_raw("json")), unit=LOG_ODDS).explain(rows)
    assert found.contributions[:, feature] == pytest.approx([left - mean, right - mean], abs=1e-5)
    assert np.delete(found.contributions, feature, axis=1).any() == np.False_


@settings(deadline=None, max_examples=25)
@given(rows=rows)
def test_permutations_add_up_whatever_the_model(made: Made, rows: list[tuple[float]]) -> None:
    matrix = np.array(rows, np.float32)
    backend = loaded_backend(made)
    found = PermutationShapley(backend, np.zeros(4, np.float32), unit=LOG_ODDS).explain(matrix)
    assert np.allclose(found.base + found.contributions.sum(axis=1), found.margin, atol=1e-9)
    assert np.allclose(to_score(found.margin, LOG_ODDS), backend.predict(matrix), atol=1e-6)


def loaded_backend(made: Made) -> Formula:
    return Formula(made.booster.inplace_predict)


@settings(deadline=None, max_examples=50)
@given(row=st.lists(st.floats(-3, 3, width=32), min_size=6, max_size=6), seed=st.integers(0, 50))
def test_permutations_are_shapley_values_where_at_most_two_features_act_together(row: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    linear, pairs = generator.normal(size=6), np.triu(generator.normal(size=(6, 6)), 1)

    def formula(matrix: Matrix) -> Matrix:
        there = matrix.astype(np.float64)
        return np.asarray(there @ linear + np.einsum("ni,ij,nj->n", there, pairs, there))

    reference = generator.normal(size=6).astype(np.float32)
    values = np.array(row, np.float32)
    [found] = PermutationShapley(Formula(formula), reference, unit=SCORE).explain(values[None]).contributions
    assert found == pytest.approx(shapley(formula, values, reference), abs=1e-3)


def test_what_is_as_usual_adds_nothing_and_asks_nothing() -> None:
    backend = Formula(lambda matrix: matrix[:, 0])
    reference = np.array([1, np.nan, 3], np.float32)
    found = PermutationShapley(backend, reference, unit=SCORE).explain(reference[None])
    assert found.contributions.tolist() == [[0.0, 0.0, 0.0]]
    assert (found.base.tolist(), found.margin.tolist(), backend.rows) == ([1.0], [1.0], 2)


def test_the_same_row_has_the_same_reasons_and_bounded_work() -> None:
    backend = Formula(lambda matrix: np.tanh(matrix).prod(axis=1))
    explainer = PermutationShapley(backend, np.zeros(30, np.float32), unit=SCORE)
    row = np.linspace(0.5, 2, 30, dtype=np.float32)[None]
    first, second = explainer.explain(row), explainer.explain(row)
    assert first.contributions.tolist() == second.contributions.tolist()
    assert backend.rows == 2 * (16 * 29 + 2)


def test_the_reference_is_the_median_and_missing_where_most_are() -> None:
    generator = np.random.default_rng(2)
    matrix = generator.normal(3, 1, size=(2_000, 3)).astype(np.float32)
    matrix[:1_500, 1] = np.nan
    matrix[:1_500, 2] = 7
    found = reference_row(build_profile(matrix, ["a", "b", "c"], matrix[:, 0]))
    assert found[0] == pytest.approx(np.median(matrix[:, 0]), abs=0.02)
    assert math.isnan(found[1])
    assert found[2] == 7


def test_a_version_with_trees_is_explained_by_them(made: Made) -> None:
    artefact = loaded(made)
    explainer = open_explainer(made.folder, artefact)
    assert (explainer.method, explainer.unit) == (TREE_SHAP, LOG_ODDS)
    scores = to_score(explainer.explain(made.matrix[:50]).margin, explainer.unit)
    assert np.allclose(scores, artefact.backend.predict(made.matrix[:50]), atol=2e-6)
    gains = TreeShap(bytes(made.booster.save_raw("json")), unit=LOG_ODDS).total_gain(len(NAMES))
    assert gains.argmin() == NAMES.index("night")


def test_trees_that_do_not_give_the_served_score_explain_nothing(made: Made, tmp_path: Path) -> None:
    """As after a calibration, or trees beside another model: the back end that serves is asked instead."""
    folder = tmp_path / "fraud-1"
    matrix = make_matrix()
    other = make_booster(matrix, rounds=3)
    served = {"onnx": tree_models(made.booster)["onnx"]}
    profile = build_profile(matrix, list(NAMES), made.booster.inplace_predict(matrix))
    write_artefact(
        folder, models=served, profile=profile, input_schema=describe_input(NAMES, matrix), sample=matrix[:500],
        definition={"name": "fraud_v1"}, clock=SystemClock(),
    )  # fmt: skip
    (folder / "model.json").write_bytes(tree_models(other)["xgboost"])
    sign_version(folder, made.fields | {"backend": "onnx"}, made.signer)
    statement = verify_version(folder, made.trust, name="fraud", clock=SystemClock())
    artefact = load_artefact(folder, statement, trial=False)
    explainer = open_explainer(folder, artefact, trial=False)
    assert (explainer.method, explainer.unit) == (PERMUTATIONS, LOG_ODDS)
    found = explainer.explain(matrix[:20])
    assert np.allclose(to_score(found.margin, LOG_ODDS), artefact.backend.predict(matrix[:20]), atol=1e-6)


def test_trees_changed_since_they_were_signed_are_refused(made: Made, tmp_path: Path) -> None:
    artefact = loaded(made)
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    data = (folder / "model.json").read_bytes()
    (folder / "model.json").write_bytes(data.replace(b"0", b"1", 1))
    with pytest.raises(Tampered, match=r"model\.json differs from what was signed"):
        open_explainer(folder, artefact)
