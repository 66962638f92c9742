"""The drivers of the `Backend` port, by name; each imports its library only when it is opened."""

from __future__ import annotations

from collections.abc import Mapping

from headway.core.errors import NotFound
from headway.models.backend import Backend

MODEL_FILES: Mapping[str, str] = {"onnx": "model.onnx", "xgboost": "model.json"}


def open_backend(name: str, model: bytes) -> Backend:
    """Load the bytes of the back end's model file, verified by the caller; NotFound lists the known names."""
    if name == "onnx":
        from headway.models.backends.onnx import OnnxBackend

        return OnnxBackend(model)
    if name == "xgboost":
        from headway.models.backends.xgboost import XGBoostBackend

        return XGBoostBackend(model)
    raise NotFound("backend", name, known=list(MODEL_FILES), field="backend")


def model_file(name: str) -> str:
    """Return the file that the back end reads; NotFound lists the known names."""
    if name not in MODEL_FILES:
        raise NotFound("backend", name, known=list(MODEL_FILES), field="backend")
    return MODEL_FILES[name]
