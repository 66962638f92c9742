from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from headway.core.errors import DefinitionError, InvalidValue
from headway.core.types import Columns
from headway.features import kernel
from headway.features.definitions import FeatureService
from headway.features.kernel import kernel_files, kernel_sha256, matrix, transform
from headway.features.transformations import transformation

AT = np.array([10, 11], np.int64)


@transformation(inputs=("amount", "event_time"), outputs=("double", "late"))
def plain(columns: Columns) -> Columns:
    return {"double": columns["amount"].astype(np.float64) * 2, "late": columns["event_time"].astype(np.int64) > 10}


@transformation(inputs=("double",), outputs=("quadruple",))
def chained(columns: Columns) -> Columns:
    return {"quadruple": columns["double"].astype(np.float32) * 2}


@transformation(inputs=("amount",), outputs=("other",))
def misnamed(columns: Columns) -> Columns:
    return {"wrong": columns["amount"]}


@transformation(inputs=("amount",), outputs=("short",))
def too_short(columns: Columns) -> Columns:
    return {"short": columns["amount"][:1]}


def test_transformations_run_in_order_and_give_float32() -> None:
    service = FeatureService(name="s", views=(), request={"amount": "float32"}, transformations=(plain, chained))
    made = transform(service, {"amount": np.array([1, np.nan], np.float32)}, AT)
    assert {made[name].dtype for name in ("double", "late", "quadruple")} == {np.dtype(np.float32)}
    found = matrix(service, made)
    assert found.dtype == np.float32
    assert found[0].tolist() == [1.0, 2.0, 0.0, 4.0]
    assert np.isnan(found[1, [0, 1, 3]]).all()


def test_the_order_of_features_is_the_services() -> None:
    service = FeatureService(name="s", views=(), request={"a": "float32", "b": "float32"}, features=("b", "a"))
    assert matrix(service, {"a": np.array([1.0]), "b": np.array([2.0])}).tolist() == [[2.0, 1.0]]


def test_what_lacks_or_does_not_fit_is_named() -> None:
    service = FeatureService(name="s", views=(), request={"amount": "float32"}, transformations=(plain,))
    with pytest.raises(InvalidValue, match="amount"):
        transform(service, {}, AT)
    with pytest.raises(InvalidValue, match="double"):
        matrix(service, {"amount": AT})
    with pytest.raises(InvalidValue, match="amount"):
        matrix(service, {"amount": np.array(["x", "y"], object)})
    columns: Columns = {"amount": np.array([1.0, 2.0], np.float32)}
    for step, message in ((misnamed, "wrong"), (too_short, r"\(1,\)")):
        wrong = FeatureService(name="s", views=(), request={"amount": "float32"}, transformations=(step,))
        with pytest.raises(DefinitionError, match=message):
            transform(wrong, columns, AT)


def test_the_hash_covers_every_module_that_makes_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the two evaluations import of windows, rows and the walk is hashed, tiles too."""
    files = kernel_files()
    assert len(set(files)) == len(files)
    root = Path(kernel.__file__).parent
    seen: set[Path] = set()
    todo = [root / "windows" / "columns.py", root / "rows" / "batch.py", root / "join" / "as_of.py"]
    declared = {"definitions", "aggregates", "status"}  # what they say is in the definition, or a number of the answer
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("headway.features"):
                inside = root.joinpath(*node.module.split(".")[2:])
                found = [inside / alias.name for alias in node.names] if inside.is_dir() else [inside]
                todo += [path.with_suffix(".py") for path in found if path.name not in declared]
    assert root / "windows" / "tiles.py" in seen
    assert seen <= set(files)

    service = FeatureService(name="s", views=(), request={"amount": "float32"})
    before = kernel_sha256(service)
    changed = tmp_path / "tiles.py"
    changed.write_text((root / "windows" / "tiles.py").read_text() + "# other\n")
    others = [changed if file.name == "tiles.py" else file for file in files]
    monkeypatch.setattr(kernel, "kernel_files", lambda: others)
    assert kernel_sha256(service) != before
