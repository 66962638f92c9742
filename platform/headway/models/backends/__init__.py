"""The drivers of the `Backend` port, by name; each imports its library only when it is opened."""

from __future__ import annotations

from pathlib import Path

from headway.core.errors import NotFound
from headway.models.backend import Backend

BACKENDS = ("onnx", "xgboost")
MODEL_FILES = {"onnx": "model.onnx", "xgboost": "model.json"}


def open_backend(name: str, folder: Path) -> Backend:
    """Load the back end's model file from an artefact folder that has been verified; NotFound lists the known names."""
    if name not in BACKENDS:
        raise NotFound("backend", name, known=list(BACKENDS), field="statement.backend")
    path = folder / MODEL_FILES[name]
    if name == "onnx":
        from headway.models.backends.onnx import OnnxBackend

        return OnnxBackend(path)
    from headway.models.backends.xgboost import XGBoostBackend

    return XGBoostBackend(path)
