"""A model trained elsewhere as a candidate: checked, tried in a process of its own, and from then on like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headway.core.errors import InvalidValue, NotFound, Tampered
from headway.core.types import Matrix
from headway.governance.files import read_regular
from headway.models.backend import Backend
from headway.models.backends import open_backend
from headway.models.onnx_import import MAX_BYTES, import_onnx
from headway.models.probe import try_model
from headway.training.definitions import OnnxImport

_FIELD = "recipe.file"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The model, open."""

    model: bytes
    backend: Backend
    file: str

    def predict(self, matrix: Matrix) -> Matrix:
        """Return ONNX Runtime's scores: there is no other reference."""
        return self.backend.predict(matrix)

    def models(self) -> Mapping[str, bytes]:
        """Return the graph."""
        return {"onnx": self.model}

    def summary(self) -> str:
        """Return the file and its size."""
        return f"{self.file}, {len(self.model):,} bytes as ONNX, not trained here"


def fit(recipe: OnnxImport, *, project: Path, features: tuple[str, ...]) -> Imported:
    """Return the model of the recipe's file, which must lie in the project and have the recipe's hash."""
    path = (project / recipe.file).resolve()
    if not path.is_relative_to(project.resolve()):
        raise InvalidValue(_FIELD, f"{recipe.file} is not in the project", hint="copy it into the project's folder")
    if not path.is_file():
        raise NotFound("file", recipe.file, field=_FIELD)
    data = read_regular(path, limit=MAX_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != recipe.sha256:
        raise InvalidValue("recipe.sha256", f"{recipe.file} has {found}", hint="the file is not the one that was meant")
    model = import_onnx(data, len(features), regression=recipe.regression)
    rows = np.array([[0.0] * len(features), [np.nan] * len(features)], dtype=np.float32)
    try:
        tried = try_model("onnx", model, rows)
    except Tampered as error:
        raise InvalidValue("model", f"cannot be loaded: {error}", hint="convert it anew") from error
    if not np.isfinite(tried).all():
        raise InvalidValue(
            "model",
            f"scores {tried[0]:g} for zeros and {tried[1]:g} for a row of missing values",
            hint="put an imputer before the model: features may be missing when a decision is made",
        )
    return Imported(model=model, backend=open_backend("onnx", model), file=recipe.file)
