"""Sources of labels: a poisoned one is named, clean ones are not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import InvalidValue
from headway.core.types import Matrix
from headway.training.gates import sources
from headway.training.gates.poisoning import LabelledRows, check_sources
from headway.training.gates.sources import copies, out_of_source, residuals, suspects

N = 12_000


@cache
def world(seed: int) -> tuple[Matrix, np.ndarray, np.ndarray]:
    """Return features, labels that they explain in part, and twelve annotators."""
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(N, 5)).astype(np.float32)
    matrix[generator.random(matrix.shape) < 0.05] = np.nan
    signal = np.nan_to_num(2 * matrix[:, 0] + matrix[:, 1] * matrix[:, 2]) - 2
    label = (generator.random(N) < 1 / (1 + np.exp(-signal))).astype(np.float64)
    return matrix, label, np.array([f"annotator {code}" for code in generator.integers(0, 12, N)])


def attacked(seed: int, kind: str) -> tuple[Matrix, np.ndarray, np.ndarray]:
    """Return the world in which annotator 4 turned 1 % of all labels, those that do most harm."""
    matrix, label, source = world(seed)
    label, mine = label.copy(), np.flatnonzero(source == "annotator 4")
    known = np.nan_to_num(matrix[mine, 0])
    order = np.argsort(-known if kind == "hidden" else np.abs(known - 1))
    turned = mine[order][label[mine[order]] == (1 if kind == "hidden" else 0)][: N // 100]
    label[turned] = 1 - label[turned]
    return matrix, label, source


@pytest.mark.parametrize("kind", ["hidden", "boundary"])
def test_one_percent_of_turned_labels_are_named(kind: str) -> None:
    matrix, label, source = attacked(1, kind)
    (found,) = suspects(matrix, label, source, seed=3)
    assert found.source == "annotator 4"
    assert (found.excess > 0) == (kind == "boundary")
    assert found.p_value < sources.ALPHA
    assert found.influence is not None


def test_clean_labels_name_nobody_and_a_seed_repeats() -> None:
    matrix, label, source = world(2)
    assert suspects(matrix, label, source, seed=3) == []
    poisoned = attacked(2, "boundary")
    assert suspects(*poisoned, seed=4) == suspects(*poisoned, seed=4)


def test_copies_near_the_boundary_are_named() -> None:
    matrix, label, source = (column.copy() for column in world(3))
    mine = np.flatnonzero(source == "annotator 7")
    near = mine[np.argsort(np.abs(np.nan_to_num(matrix[mine, 0]) - 1))][:200]
    matrix[near[100:]], label[near[100:]] = matrix[near[:100]], label[near[:100]]
    (found,) = suspects(matrix, label, source, seed=3)
    assert (found.source, found.check) == ("annotator 7", "duplicates")


def test_sources_that_differ_by_clusters_are_not_named_for_it() -> None:
    generator = np.random.default_rng(4)
    terminal = np.repeat(np.arange(600), 20)
    bad = generator.random(600) < 0.05
    label = (bad[terminal] & (generator.random(N) < 0.9)).astype(np.float64)
    matrix = generator.normal(size=(N, 3)).astype(np.float32)
    group = np.array([f"group {code}" for code in terminal % 12])
    assert suspects(matrix, label, group, terminal, seed=1) == []


def test_no_model_sees_the_source_that_it_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, label, source = world(5)
    code = np.unique(source, return_inverse=True)[1]
    tagged = matrix.copy()
    tagged[:, 0] = code  # a model that had seen its source could tell it by this
    told = (code == 4).astype(np.float64)
    score, model = out_of_source(tagged, told, code, seed=0)
    assert score[code == 4].max() < 0.5
    assert set(np.bincount(model)) == {int((model == part).sum()) for part in range(sources.FOLDS)}
    monkeypatch.setattr(sources, "FIT_ROWS", 500)
    small, _ = out_of_source(matrix, label, code, seed=0)
    assert np.corrcoef(small, label)[0, 1] > 0.3


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, np.nan])] * 3), min_size=1, max_size=40))
def test_copies_are_rows_that_stood_before(rows: list[tuple[float, ...]]) -> None:
    matrix = np.array(rows, dtype=np.float32)
    seen: set[bytes] = set()
    expected = []
    for row in matrix:
        expected.append(float(row.tobytes() in seen))
        seen.add(row.tobytes())
    assert copies(matrix).tolist() == expected


def test_residuals_are_centred_for_each_model() -> None:
    generator = np.random.default_rng(6)
    score, model = generator.random(4_000), np.repeat([0, 1], 2_000)
    label = (generator.random(4_000) < np.where(model == 1, score / 2, score)).astype(np.float64)
    found = residuals(label, score, model, np.zeros(4_000))
    for part in (0, 1):
        assert found["labels"][0][model == part].mean() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found["boundary"][0], found["labels"][0] * 4 * score * (1 - score))


def test_too_few_sources_cannot_be_measured_and_do_not_pass() -> None:
    matrix, label, _ = world(1)
    with pytest.raises(InvalidValue, match="2 with 200 rows"):
        suspects(matrix, label, np.arange(N) % 2, seed=0)
    rows = LabelledRows(matrix=matrix, label=label, source=np.arange(N), cluster=None, column="annotator")
    (result,) = check_sources(rows, seed=0)
    assert (result.passed, result.value) == (False, None)
    assert check_sources(None, seed=0) == []


def test_the_gate_names_the_column_and_the_source() -> None:
    matrix, label, source = attacked(1, "boundary")
    (result,) = check_sources(
        LabelledRows(matrix=matrix, label=label, source=source, cluster=None, column="annotator"), seed=3
    )
    assert not result.passed
    assert "poisoning suspect_sources 1.0000 > ceiling 0 (job): annotator 4: " in str(result)
