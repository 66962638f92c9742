"""From view features and request columns to the model's input: the same functions over training blocks and requests."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from headway.core.canonical import canonical, sha256
from headway.core.errors import DefinitionError, HeadwayError, InvalidValue
from headway.core.times import EVENT_TIME
from headway.core.types import Columns, Int64, Matrix
from headway.features.definitions import FeatureService


def transform(service: FeatureService, columns: Columns, at: Int64) -> Columns:
    """Return the columns with the outputs of the service's transformations added, as float32.

    `at` are the decision times, int64[n]; a transformation sees them as `event_time`. Raises InvalidValue for a
    missing input and DefinitionError where a function does not return what it declared.
    """
    made: Columns = dict(columns)
    for step in service.transformations:
        inputs: Columns = {}
        for name in step.inputs:
            if name == EVENT_TIME:
                inputs[name] = at
            elif name in made:
                inputs[name] = made[name]
            else:
                raise InvalidValue(name, f"needed by the transformation {step.name!r} and not given")
        outputs = step.function(inputs)
        if outputs.keys() != step.outputs.keys():
            raise DefinitionError(
                f"returned {', '.join(sorted(outputs)) or 'nothing'}",
                field=f"{service.name}.{step.name}",
                expected=", ".join(sorted(step.outputs)),
            )
        for name, values in outputs.items():
            column = np.asarray(values, dtype=np.float32)
            if column.shape != at.shape:
                raise DefinitionError(
                    f"{name} has the shape {column.shape}",
                    field=f"{service.name}.{step.name}",
                    expected=f"one value per row: {at.shape}",
                )
            made[name] = column
    return made


def matrix(service: FeatureService, columns: Columns) -> Matrix:
    """Return float32[n, k] in the order of `service.features`, missing values as NaN; InvalidValue names what lacks."""
    try:
        stacked = np.array([columns[name] for name in service.features], np.float32)
    except (KeyError, TypeError, ValueError):
        raise _not_numbers(service, columns) from None
    return np.ascontiguousarray(stacked.T)


def _not_numbers(service: FeatureService, columns: Columns) -> HeadwayError:
    """Find the column that cannot be part of a matrix."""
    for name in service.features:
        column = columns.get(name)
        if column is None:
            return InvalidValue(name, f"a feature of {service.name} that is not among the columns")
        try:
            np.asarray(column, dtype=np.float32)
        except (TypeError, ValueError):
            return InvalidValue(name, f"{column.dtype} values where the model needs numbers")
    return InvalidValue("columns", "they differ in length")


def kernel_sha256(service: FeatureService) -> str:
    """Return the hash of everything that decides a feature value: the definition and the kernel's source text."""
    sources = [file.read_text() for file in kernel_files()]
    sources.append(inspect.getsource(transform) + inspect.getsource(matrix))
    return sha256(canonical({"definition": service.describe(), "sources": sources}))


def kernel_files() -> tuple[Path, ...]:
    """Return the files whose text decides what a value is: both rooms of views, conversion, and the as-of walk."""
    home = Path(__file__).parent  # by path: a replica does not load what only writes
    rooms = [file for room in ("rows", "windows") for file in sorted((home / room).glob("*.py"))]
    return (*rooms, home / "arrow.py", home / "join" / "as_of.py")
