"""What the model was trained to see: type, range and nulls of every feature, signed with the version."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from headway.core.errors import InvalidValue
from headway.core.types import Matrix


class FeatureSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column of the model's input."""

    name: str
    dtype: str = "float32"
    minimum: float | None = None
    """Smallest value seen in training; null: only missing values were seen."""
    maximum: float | None = None
    nulls: bool = True
    """Whether missing values were seen."""


class InputSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Columns in the order of the matrix."""

    features: tuple[FeatureSchema, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(feature.name for feature in self.features)


def describe_input(names: tuple[str, ...], matrix: Matrix) -> InputSchema:
    """Return the schema observed in float32 [n, k]; InvalidValue names an infinite column."""
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise InvalidValue("matrix", f"shape {matrix.shape}, expected [n, {len(names)}]")
    features = []
    for index, name in enumerate(names):
        column = matrix[:, index]
        if np.isinf(column).any():
            raise InvalidValue(name, "holds an infinite value", hint="bound the transformation that makes it")
        present = column[~np.isnan(column)]
        features.append(
            FeatureSchema(
                name=name,
                minimum=float(present.min()) if len(present) else None,
                maximum=float(present.max()) if len(present) else None,
                nulls=len(present) < len(column),
            )
        )
    return InputSchema(features=tuple(features))


def merge_schemas(first: InputSchema, second: InputSchema) -> InputSchema:
    """Return the schema of the rows of both, which have the same features."""
    return InputSchema(
        features=tuple(
            FeatureSchema(
                name=a.name,
                minimum=_pick(min, a.minimum, b.minimum),
                maximum=_pick(max, a.maximum, b.maximum),
                nulls=a.nulls or b.nulls,
            )
            for a, b in zip(first.features, second.features, strict=True)
        )
    )


def _pick(choose: Callable[[list[float]], float], *values: float | None) -> float | None:
    present = [value for value in values if value is not None]
    return choose(present) if present else None
