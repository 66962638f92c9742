"""Models of other libraries through ONNX, and files that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from headway.core.errors import InvalidValue, Tampered
from headway.core.types import Matrix
from headway.models.backends import open_backend
from headway.models.onnx_import import import_onnx
from headway.models.onnx_validation import parse_onnx

WIDTH = 5


def made() -> tuple[Matrix, Any]:
    generator = np.random.default_rng(6)
    matrix = generator.normal(size=(1_500, WIDTH)).astype(np.float32)
    matrix[:, 4] = generator.integers(0, 8, len(matrix))
    return matrix, (matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + (matrix[:, 4] % 3 == 1) > 0.7).astype(int)


def converted(model: Any, matrix: Matrix, **options: object) -> bytes:
    return bytes(to_onnx(model, matrix[:1], **options).SerializeToString())


CLASSIFIERS = {
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=20),
    "random forest": lambda: RandomForestClassifier(n_estimators=20, max_depth=6, random_state=1),
    "logistic pipeline": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
}


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scikit_learns_classifiers_keep_their_probabilities(name: str, zipmap: bool) -> None:
    matrix, label = made()
    model = CLASSIFIERS[name]().fit(matrix, label)
    options = {} if zipmap else {"options": {"zipmap": False}}
    found = open_backend("onnx", import_onnx(converted(model, matrix, **options), WIDTH)).predict(matrix)
    np.testing.assert_allclose(found, model.predict_proba(matrix)[:, 1], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "model", [GradientBoostingRegressor(n_estimators=20), make_pipeline(StandardScaler(), Ridge())]
)
def test_scikit_learns_regressions_keep_their_numbers(model: Any) -> None:
    matrix, label = made()
    model.fit(matrix, label)
    found = open_backend("onnx", import_onnx(converted(model, matrix), WIDTH, regression=True)).predict(matrix)
    np.testing.assert_allclose(found, model.predict(matrix), atol=1e-5, rtol=0)


def light(kind: Any, matrix: Matrix, label: Any, *, zipmap: bool = True) -> tuple[Any, bytes]:
    model = kind(n_estimators=20, verbose=-1, min_child_samples=5, n_jobs=1).fit(matrix, label, categorical_feature=[4])
    types = [("input", FloatTensorType([None, WIDTH]))]
    return model, bytes(
        convert_lightgbm(model, initial_types=types, target_opset=15, zipmap=zipmap).SerializeToString()
    )


@pytest.mark.parametrize("zipmap", [True, False])
def test_lightgbm_keeps_its_probabilities_with_categories_and_missing_values(zipmap: bool) -> None:
    matrix, label = made()
    matrix[::7, 0] = np.nan
    model, data = light(lightgbm.LGBMClassifier, matrix, label, zipmap=zipmap)
    found = open_backend("onnx", import_onnx(data, WIDTH)).predict(matrix)
    np.testing.assert_allclose(found, model.booster_.predict(matrix), atol=1e-6, rtol=0)


def test_lightgbm_keeps_its_numbers() -> None:
    matrix, label = made()
    model, data = light(lightgbm.LGBMRegressor, matrix, label)
    found = open_backend("onnx", import_onnx(data, WIDTH, regression=True)).predict(matrix)
    np.testing.assert_allclose(found, model.booster_.predict(matrix), atol=1e-5, rtol=0)


def test_what_does_not_fit_the_use_case_is_refused_by_name() -> None:
    matrix, label = made()
    forest = converted(RandomForestClassifier(n_estimators=2).fit(matrix, label), matrix)
    with pytest.raises(InvalidValue, match="takes 5 columns, the feature service gives 6"):
        import_onnx(forest, 6)
    with pytest.raises(InvalidValue, match="2 outputs, a regression has one"):
        import_onnx(forest, WIDTH, regression=True)
    three = converted(RandomForestClassifier(n_estimators=2).fit(matrix, matrix[:, 4] % 3), matrix)
    with pytest.raises(InvalidValue, match=r"classes \[0, 1, 2\]"):
        import_onnx(three, WIDTH)
    ridge = converted(Ridge().fit(matrix, label), matrix)
    with pytest.raises(InvalidValue, match="expected label and probabilities"):
        import_onnx(ridge, WIDTH)
    pipeline = make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=1_000)).fit(matrix, label)
    with pytest.raises(InvalidValue, match="not known"):
        import_onnx(converted(pipeline, matrix), WIDTH)


@pytest.mark.parametrize("data", [b"", b"\x80\x04\x95", b"not a model", b"\xff" * 100])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue, match="model"):
        import_onnx(data, WIDTH)


def trees(model: Any) -> dict[str, Any]:
    (node,) = (node for node in model.graph.node if node.op_type.startswith("TreeEnsemble"))
    return {attribute.name: attribute for attribute in node.attribute}


def put(name: str, index: int, value: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        trees(model)[name].ints[index] = value

    return change


def outside(model: Any) -> None:
    tensor = helper.make_tensor("big", TensorProto.FLOAT, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    model.graph.initializer.append(tensor)


def custom(model: Any) -> None:
    model.graph.node[0].domain = "my.company"


def branching(model: Any) -> None:
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["X"], ["y"], then_branch=inner, else_branch=inner))


def function(model: Any) -> None:
    model.functions.append(helper.make_function("my", "f", ["x"], ["y"], [], [helper.make_opsetid("", 15)]))


def wide(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "k"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("nodes_featureids", 0, WIDTH), "a feature is outside"),
        (put("nodes_featureids", 0, -1), "a feature is outside"),
        (put("nodes_truenodeids", 0, 1_000_000), "a child"),
        (put("nodes_truenodeids", 1, 0), "lead back|root"),
        (put("nodes_nodeids", 1, 0), "there twice"),
        (put("target_ids", 0, 7), "a target is outside"),
        (put("target_nodeids", 0, 0), "do not belong"),
        (lambda model: trees(model)["nodes_values"].floats.pop(), "differ in length"),
        (outside, "kept in another file"),
        (custom, "other domains|are code"),
        (branching, "graph of its own"),
        (function, "functions"),
        (wide, "not known"),
    ],
)
def test_a_structure_that_is_not_sound_never_reaches_the_runtime(change: Callable[[Any], object], says: str) -> None:
    matrix, label = made()
    model = to_onnx(GradientBoostingRegressor(n_estimators=3).fit(matrix, label), matrix[:1])
    parse_onnx(bytes(model.SerializeToString()))
    change(model)
    with pytest.raises(Tampered, match=says):
        parse_onnx(bytes(model.SerializeToString()))


def test_a_linear_model_with_too_few_coefficients_is_refused() -> None:
    matrix, label = made()
    model = onnx.load_model_from_string(converted(Ridge().fit(matrix, label), matrix))
    (node,) = (node for node in model.graph.node if node.op_type == "LinearRegressor")
    for attribute in node.attribute:
        if attribute.name == "coefficients":
            attribute.floats.pop()
    with pytest.raises(Tampered, match="4 coefficients"):
        parse_onnx(bytes(model.SerializeToString()))
