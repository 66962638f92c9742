"""The import recipe: which file, and what it must be able to do."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from headway.core.errors import HeadwayError, InvalidValue, NotFound
from headway.core.types import Matrix
from headway.training.definitions import OnnxImport
from headway.training.recipes.onnx_import import fit

FEATURES = tuple(f"f{index}" for index in range(6))
FILE = "models/logistic.onnx"


def written(project: Path, learnable: tuple[Matrix, Matrix], *steps: Any) -> tuple[Any, OnnxImport]:
    matrix, label = learnable
    model = make_pipeline(*steps, LogisticRegression()).fit(np.nan_to_num(matrix), label)
    data = bytes(to_onnx(model, matrix[:1]).SerializeToString())
    (project / FILE).parent.mkdir(exist_ok=True)
    (project / FILE).write_bytes(data)
    return model, OnnxImport(file=FILE, sha256=hashlib.sha256(data).hexdigest())


def test_an_imported_model_scores_like_the_one_that_was_converted(
    tmp_path: Path, learnable: tuple[Matrix, Matrix]
) -> None:
    model, recipe = written(tmp_path, learnable, SimpleImputer())
    imported = fit(recipe, project=tmp_path, features=FEATURES)
    rows = np.nan_to_num(learnable[0][:200])
    np.testing.assert_allclose(imported.predict(rows), model.predict_proba(rows)[:, 1], atol=1e-6, rtol=0)
    assert list(imported.models()) == ["onnx"]
    assert "not trained here" in imported.summary()


def test_a_model_that_cannot_score_missing_values_is_refused(tmp_path: Path, learnable: tuple[Matrix, Matrix]) -> None:
    _, recipe = written(tmp_path, learnable)
    with pytest.raises(InvalidValue, match=r"row of missing values.*imputer"):
        fit(recipe, project=tmp_path, features=FEATURES)


@pytest.mark.parametrize(
    ("file", "sha256", "error", "says"),
    [
        (FILE, "0" * 64, InvalidValue, "recipe.sha256"),
        ("models/other.onnx", "0" * 64, NotFound, "recipe.file"),
        ("../outside.onnx", "0" * 64, InvalidValue, "not in the project"),
        ("/etc/passwd", "0" * 64, InvalidValue, "not in the project"),
    ],
)
def test_another_file_than_the_one_meant_is_refused(
    tmp_path: Path, learnable: tuple[Matrix, Matrix], file: str, sha256: str, error: type[HeadwayError], says: str
) -> None:
    written(tmp_path, learnable)
    with pytest.raises(error, match=says):
        fit(OnnxImport(file=file, sha256=sha256), project=tmp_path, features=FEATURES)
