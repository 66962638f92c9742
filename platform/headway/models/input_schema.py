"""What the model was trained to see: type, range, categories and nulls of each column, signed with the version."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.errors import InvalidValue
from headway.core.types import Matrix

CATEGORIES = 1_000
"""More texts than these are no categories but names."""


class FeatureSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column of the model's input."""

    name: str
    dtype: str = "float32"
    minimum: float | None = None
    """Smallest value seen in training; null: only missing values were seen."""
    maximum: float | None = None
    nulls: bool = True
    """Whether missing values were seen."""
    categories: tuple[str, ...] | None = None
    """Every text seen, in order; null: not text, or too many to name."""


class InputSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Columns in the order of the matrix."""

    features: tuple[FeatureSchema, ...]
    request: tuple[FeatureSchema, ...] = ()
    """Request columns that are no features themselves: transformations make features of them."""

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


def describe_column(name: str, dtype: str, values: pa.ChunkedArray) -> FeatureSchema:
    """Return what is seen in a request column of any dtype."""
    nulls = bool(values.null_count)
    if dtype == "string":
        there = tuple(sorted(text for text in pc.unique(values).to_pylist() if text is not None))
        few = len(there) <= CATEGORIES
        return FeatureSchema(name=name, dtype=dtype, nulls=nulls, categories=there if few else None)
    if dtype == "bool" or len(values) == values.null_count:
        return FeatureSchema(name=name, dtype=dtype, nulls=nulls)
    bounds = pc.min_max(values).as_py()
    return FeatureSchema(
        name=name, dtype=dtype, minimum=float(bounds["min"]), maximum=float(bounds["max"]), nulls=nulls
    )


def merge_schemas(first: InputSchema, second: InputSchema) -> InputSchema:
    """Return the schema of the rows of both, which have the same columns."""
    return InputSchema(
        features=tuple(_merged(a, b) for a, b in zip(first.features, second.features, strict=True)),
        request=tuple(_merged(a, b) for a, b in zip(first.request, second.request, strict=True)),
    )


def _merged(first: FeatureSchema, second: FeatureSchema) -> FeatureSchema:
    both = None
    if first.categories is not None and second.categories is not None:
        both = tuple(sorted({*first.categories, *second.categories}))
    return FeatureSchema(
        name=first.name,
        dtype=first.dtype,
        minimum=_pick(min, first.minimum, second.minimum),
        maximum=_pick(max, first.maximum, second.maximum),
        nulls=first.nulls or second.nulls,
        categories=both if both is None or len(both) <= CATEGORIES else None,
    )


def _pick(choose: Callable[[list[float]], float], *values: float | None) -> float | None:
    present = [value for value in values if value is not None]
    return choose(present) if present else None
