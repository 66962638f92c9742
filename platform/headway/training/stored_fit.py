"""A fitted model in files: what its back ends read, and a line about its training; it predicts by the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from headway.core.canonical import sha256
from headway.core.types import Matrix
from headway.models.backend import Backend
from headway.models.backends import open_backend
from headway.training.fitted import Fitted

FACTS = "fit.json"


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    backends: tuple[str, ...]
    """The reference first."""
    summary: str


@dataclass(frozen=True)
class StoredFit:
    """A finished training that was kept."""

    files: Mapping[str, bytes]
    """Back end → model file; the first is the reference."""
    said: str

    def predict(self, matrix: Matrix) -> Matrix:
        """Return the reference back end's scores."""
        return self._reference.predict(matrix)

    def models(self) -> Mapping[str, bytes]:
        """Return the model files."""
        return self.files

    def summary(self) -> str:
        """Return what the training said of itself."""
        return self.said

    @cached_property
    def _reference(self) -> Backend:
        name, model = next(iter(self.files.items()))
        return open_backend(name, model)


def store(fitted: Fitted, folder: Path) -> StoredFit:
    """Write a model into an empty folder and return it as it will be read again."""
    models = dict(fitted.models())
    for name, data in models.items():
        (folder / f"{name}.model").write_bytes(data)
    facts = _Facts(backends=tuple(models), summary=fitted.summary())
    (folder / FACTS).write_bytes(msgspec.json.encode(facts))
    return StoredFit(models, facts.summary)


def load(folder: Path) -> StoredFit:
    """Return the model of a folder."""
    facts = msgspec.json.decode((folder / FACTS).read_bytes(), type=_Facts)
    return StoredFit({name: (folder / f"{name}.model").read_bytes() for name in facts.backends}, facts.summary)


def model_hashes(fitted: Fitted) -> dict[str, str]:
    """Return back end → SHA-256 of its model file, the reference first."""
    return {name: sha256(data) for name, data in fitted.models().items()}
