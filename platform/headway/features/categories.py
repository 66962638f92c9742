"""Categories as codes: a transformation that maps declared values to 0, 1, …, the same offline and online.

The values are declared, never learnt: a dictionary made from training data would be one more thing to ship, and a code
that moves between two trainings is skew that no hash shows. Here the values are part of the kernel's hash.
"""

from __future__ import annotations

import numpy as np

from headway.core.errors import DefinitionError
from headway.core.types import Columns
from headway.features.transformations import Transformation, TransformFunction

CATEGORIES = 1_024
"""More values than these are no categories but names."""


def category_codes(column: str, categories: tuple[str | int, ...], *, output: str | None = None) -> Transformation:
    """Return a transformation `<column>_code`: the position of each value in `categories`; null or unknown: missing.

    Add a new value at the end: the codes of the others then stay. DefinitionError for values named twice, or too many.
    """
    if not categories or len(set(categories)) != len(categories) or len(categories) > CATEGORIES:
        raise DefinitionError(
            f"{len(categories)} values, {len(set(categories))} of them different",
            field=f"{column}.categories",
            expected=f"1 to {CATEGORIES} different values",
        )
    name = output or f"{column}_code"
    return Transformation(
        name=name, inputs=(column,), outputs={name: "float32"}, function=_coder(column, categories, name)
    )


def _coder(column: str, categories: tuple[str | int, ...], output: str) -> TransformFunction:
    def code(columns: Columns) -> Columns:
        codes = {value: index for index, value in enumerate(categories)}
        values = columns[column].tolist()
        found = (codes.get(value, np.nan) for value in values)
        return {output: np.fromiter(found, dtype=np.float32, count=len(values))}

    return code
