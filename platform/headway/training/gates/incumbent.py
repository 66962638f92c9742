"""The version that serves, loaded from its own verified files to be held against the candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headway.core.canonical import canonical
from headway.core.clock import Clock
from headway.core.errors import DefinitionError
from headway.core.routing import VersionRef
from headway.core.types import Matrix
from headway.governance.signing import TrustRoot
from headway.governance.statement import verify_version
from headway.models.artefact import load_artefact, read_definition
from headway.models.backend import Backend

_MODEL = ("spine", "label", "label_delay", "recipe", "seed", "service")
"""What makes two trainings the same model on other data."""


@dataclass(frozen=True, kw_only=True)
class Incumbent:
    """A champion that can be asked."""

    version: str
    backend: Backend
    features: tuple[str, ...]
    definition: Mapping[str, Any]

    def scores(self, matrix: Matrix, features: Sequence[str]) -> Matrix:
        """Return its scores of rows whose columns are `features`; DefinitionError for a feature that is not there."""
        missing = [name for name in self.features if name not in features]
        if missing:
            raise DefinitionError(
                f"champion {self.version} reads {', '.join(missing)}, which {len(features)} features do not hold",
                field="job.service", expected="its features too, or a training --without-champion",
            )  # fmt: skip
        place = [list(features).index(name) for name in self.features]
        return self.backend.predict(np.ascontiguousarray(matrix[:, place]))

    def refreshed_by(self, definition: Mapping[str, Any]) -> bool:
        """Whether a training of this definition is the same model on other data."""
        return canonical(_model(self.definition)) == canonical(_model(definition))

    def seen_until(self) -> int:
        """Return the end of its training range, UTC microseconds."""
        return int(self.definition["train"][1])


def load_incumbent(ref: VersionRef, use_case: str, trust: TrustRoot, clock: Clock) -> Incumbent:
    """Verify and load the version that routing names; NotSigned and Tampered say what does not hold."""
    folder = Path(ref.path)
    statement = verify_version(
        folder, trust, name=use_case, version=ref.version, clock=clock, statement_sha256=ref.statement_sha256
    )
    artefact = load_artefact(folder, statement)
    return Incumbent(
        version=ref.version,
        backend=artefact.backend,
        features=artefact.input_schema.names,
        definition=read_definition(folder, statement),
    )


def _model(definition: Mapping[str, Any]) -> dict[str, Any]:
    start, end = definition["train"]
    return {name: definition.get(name) for name in _MODEL} | {"train": end - start}
